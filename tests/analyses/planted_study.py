"""A study without a model: noise as activations, with one concept planted at one site, step and pass."""

from pathlib import Path

import numpy as np

from cache import CachePlan, CacheWriter
from workbench.engine.settings import GenerationSettings
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import Study, StudySpec, cache_identity

SITES = ("tf0.cross_attn", "tf1.cross_attn")
STEPS = (0, 4)
SIGMAS = (1.0, 0.5)
PASSES = ("cond", "null")
TOKENS = 6
TOKEN_SECONDS = 0.5
CHANNELS = 8
SEEDS = 2
CONCEPTS = {
    "tempo": ("slow", "fast"),
    "mood": ("happy", "sad"),
    "instrument": ("violin", "flute", "piano", "guitar", "trumpet"),
    "drums": ("with drums", "without drums"),
}
# Where "fast" shifts the activations along the first channel, and by how much.
PLANTED = ("tf1.cross_attn", 4, "cond")
SHIFT = 4.0


def make_planted_study(folder: Path) -> Study:
    """40 fully crossed prompts with two seeds each; tempo is planted at `PLANTED`, everything else is noise."""
    prompts = PromptSet(
        templates=("a {tempo} {mood} {instrument} song {drums}",),
        concepts={concept: {value: value for value in values} for concept, values in CONCEPTS.items()},
    )
    spec = StudySpec(
        model="none",
        prompts=prompts,
        settings=GenerationSettings(),
        n_prompts=40,
        seeds=SEEDS,
        sites=SITES,
        steps=STEPS,
        passes=PASSES,
        cache_dtype="float32",
    )
    study = Study.create(
        folder, spec, {"model": "none", "weights_hash": "none", "device": "cpu", "dtype": "float32"}, str
    )
    plan = CachePlan(
        sites=dict.fromkeys(SITES, CHANNELS),
        n_clips=len(study.clips),
        steps=STEPS,
        sigmas=SIGMAS,
        passes=PASSES,
        tokens=TOKENS,
        token_seconds=TOKEN_SECONDS,
        dtypes="float32",
        clips_per_shard=16,
        identity=cache_identity(spec, "none"),
    )
    acts = _activations(study)
    with CacheWriter(study.cache_location, plan, study.clips) as writer:
        for shard in writer.missing():
            first, last = plan.shard_clips(shard)
            writer.write_shard(shard, {site: values[first : last + 1] for site, values in acts.items()})
    return study


def _activations(study: Study) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shape = (len(study.clips), len(STEPS), len(PASSES), TOKENS, CHANNELS)
    acts = {site: rng.normal(size=shape).astype(np.float32) for site in SITES}
    site, step, pass_name = PLANTED
    fast = (study.clips["label_tempo"] == "fast").to_numpy()
    acts[site][fast, STEPS.index(step), PASSES.index(pass_name), :, 0] += SHIFT
    return acts
