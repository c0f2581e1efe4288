"""Concept scores kept: how much of each concept is left when an SAE stands in for a site in whole generations.

Of pairs of a clean and a corrupt prompt, the clean runs are made again with the site's output replaced at all recorded
steps: by the SAE's reconstruction, its mean or zero. With s the mean score for the clean prompt's value,

    score kept = (s_replaced - s_corrupt) / (s_clean - s_corrupt) = 1 - impact

where the impact is that of patching (necessity; `analyses.patching.impact`). 1 keeps the concept as it is, 0 leaves as
much as the prompt without it has. Undefined where the judge does not tell the clean from the corrupt runs.
"""

import logging
from collections.abc import Callable, Mapping

import xarray as xr

from analyses.execution import Executor
from analyses.patching.arms import Arm
from analyses.patching.contexts import drop_indistinguishable, prompt_set_contexts, with_noise
from analyses.patching.dataset import score_array
from analyses.patching.impact import RESOLUTION, impact
from analyses.patching.sweep import Sweep
from workbench.engine.edits import Edit
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.reading import encoder
from workbench.scorers import Scorer, check_heard
from workbench.studies.study import Study

Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)


def scores_kept(
    study: Study,
    model: AudioDiffusionModel,
    edits: Mapping[str, tuple[Edit, ...]],
    scorers: Mapping[str, Scorer],
    pairs: int,
    seeds: int,
    seed: int,
    progress: Progress | None = None,
    executor: Executor | None = None,
    note: Callable[[str], None] = _log.warning,
) -> xr.Dataset:
    """Run pairs of every concept with the site replaced, and return what is kept of their scores.

    Args:
        study: the study, whose prompt set, settings and run store are used.
        model: the study's model.
        edits: what replaces the site, by name (see `analyses.sae.replacements`).
        scorers: the judges by name.
        pairs: pairs of each concept, or as many as there are.
        seeds: seeds of the noise of each pair.
        seed: seed of the pairs.
        progress: called as `progress(done, total)` with numbers of pairs times seeds.
        executor: runs the units of work, by default in this process.
        note: called with a sentence on each scorer that cannot score some of the texts.

    Returns:
        `score_kept`, `score_kept_lo`, `score_kept_hi` (concept, replacement, scorer), with BCa bootstrap intervals over
        pairs; `contrast`, `contrast_lo`, `contrast_hi` (concept, scorer), the denominator; `pairs` (concept, scorer).

    Raises:
        UserError: if the model cannot tell the prompts of any pair of a concept apart.
    """
    prompts, encode = study.spec.prompts, encoder(model, study.spec.lyrics, study.spec.settings)
    drawn = {
        concept: prompt_set_contexts(prompts, concept, pairs, seed, encode) for concept in prompts.concepts
    }
    kept, _ = drop_indistinguishable(drawn, (), encode)
    contexts = with_noise(kept, (study.spec.seed, seed), seeds)
    texts = [text for of_concept in contexts.values() for c in of_concept for text in c.texts]
    for sentence in check_heard(scorers.values(), texts):
        note(sentence)
    arms = [Arm(name, name, "", each, direction="necessity") for name, each in edits.items()]
    sweep = Sweep(study, model, scorers, contexts, executor)
    sweep.check(arms)
    total = sum(len(context.seeds) for of_concept in contexts.values() for context in of_concept)
    most = max(map(len, contexts.values()))
    for done, _ in enumerate(sweep.run(dict.fromkeys(contexts, arms), range(most)), 1):
        if progress is not None:
            progress(done, total)
    score = score_array(sweep, contexts, arms)
    found = impact(score, resolution=RESOLUTION[study.model["dtype"]])
    of_arms = found.sel(arm=list(edits)).rename(arm="replacement")
    values = {
        "score_kept": 1 - of_arms["impact"],
        "score_kept_lo": 1 - of_arms["impact_hi"],
        "score_kept_hi": 1 - of_arms["impact_lo"],
        "contrast": found["denominator"],
        "contrast_lo": found["denominator_lo"],
        "contrast_hi": found["denominator_hi"],
        "pairs": found["n_pairs"],
    }
    return xr.Dataset({name: value.reset_coords(drop=True) for name, value in values.items()})
