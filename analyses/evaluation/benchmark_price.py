"""What an evaluation costs, before it runs: clips, and time from short trials of the model, judges and distances."""

import time
from dataclasses import dataclass

from analyses.evaluation.benchmark import questions, stages
from analyses.evaluation.benchmark_result import REPORT, SELECTION
from analyses.evaluation.benchmark_spec import CONTROL, METHODS, VECTOR_METHODS, BenchmarkSpec
from workbench.engine.runs import Clip
from workbench.models.base import AudioDiffusionModel
from workbench.scorers import heard, load_scorer
from workbench.scorers.audiobox import AXES
from workbench.scorers.distances import load_distance
from workbench.studies.study import Study

TRIAL_CLIPS = 4
TRIAL_STEPS = 2


@dataclass(frozen=True)
class BenchmarkPrice:
    """Clips that are generated at most: steered ones with their unsteered and real ones, and those of the fits.

    `clip_seconds` is the time of a steered clip with all judges and distances, and `seconds` that of all clips, without
    the training of concept sliders.
    """

    steered: int
    fitted: int
    clip_seconds: float
    seconds: float


def benchmark_price(study: Study, model: AudioDiffusionModel, spec: BenchmarkSpec) -> BenchmarkPrice:
    """Estimate the cost of an evaluation of which nothing is there yet; runs a few short clips and writes nothing."""
    methods = spec.methods or METHODS
    tried = [place for place in spec.places if place != CONTROL]
    controls = len(tried) * (spec.randoms * len(spec.parts) + 1) if "caa" in methods else 0
    steered = 0
    for question in questions(study, spec):
        for stage, direction in stages(spec):
            pairs = len(getattr(getattr(question.pairs, stage), direction))
            parts = spec.parts_by_place(chooses=stage == SELECTION)
            doses = len(methods) * sum(map(len, parts.values()))
            extra = controls if stage == REPORT and spec.protocol == "strict" else 0
            steered += pairs * spec.seeds * (2 + doses + extra)
    captures = 2 if {"caa-same-latents", "caa-by-token"} & set(methods) else 1
    captures = captures if set(methods) & set(VECTOR_METHODS) else 0
    fitted = (
        2 * spec.fit_pairs * captures * len(spec.places) * len(spec.concepts or study.spec.prompts.concepts)
    )
    generated, heard_in = _clip_seconds(study, model, spec)
    return BenchmarkPrice(
        steered, fitted, generated + heard_in, (steered + fitted) * generated + steered * heard_in
    )


def _clip_seconds(study: Study, model: AudioDiffusionModel, spec: BenchmarkSpec) -> tuple[float, float]:
    """Return the seconds in which a clip is generated, and in which it is heard by all judges and distances."""
    settings = study.spec.settings
    clips = [Clip(f"trial {seed}", seed) for seed in range(TRIAL_CLIPS)]
    took = []
    for steps in (1, TRIAL_STEPS):  # the first also warms up
        started = time.perf_counter()
        made = model.generate_batch(clips, settings.model_copy(update={"num_steps": steps}))
        took.append(time.perf_counter() - started)
    started = time.perf_counter()
    audio = model.decode(made.latents[:1], settings.duration).float().cpu().numpy()
    decoded = time.perf_counter() - started
    step = took[1] / TRIAL_STEPS / TRIAL_CLIPS
    values = (value for of_concept in study.spec.prompts.concepts.values() for value in of_concept.values())
    texts = [*(value.text for value in values), *AXES]
    scorers = [load_scorer(name, device=model.device) for name in spec.scorers]
    distances = [load_distance(name, device=model.device) for name in spec.distances]
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        for scorer in scorers:
            if known := heard(scorer, texts):
                scorer.score(audio, model.sample_rate, known)
        for distance in distances:
            distance.compare(audio, audio, model.sample_rate)
    return step * settings.num_steps + decoded, time.perf_counter() - started
