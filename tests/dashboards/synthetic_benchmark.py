"""The result of an evaluation made without a model, from simulated trials: planted slopes, and a judge that is deaf."""

from functools import cache

import pytest
import xarray as xr

from analyses.evaluation import curve_summaries
from analyses.evaluation.benchmark_result import DIRECTIONS, REPORT, SELECTION, benchmark_result
from analyses.evaluation.benchmark_spec import BenchmarkSpec, Protocol
from analyses.evaluation.slopes import NO_SLOPE
from tests.analyses.evaluation.simulated_trial import simulated_trial

CONCEPTS = ("mood", "tempo")
SLOPES = {"caa (localised)": 0.4, "caa (all)": 0.2, "pci (others)": 0.3}
"""Change of the score per unit of strength; the real prompt changes it by 1."""
ORDER = ["caa (localised)", "caa (all)", "pci (others)"]
"""The methods, the best first, and the control, which is not compared."""
JUDGES = {"embedded": 1.0, "deaf": 0.0}
STRENGTHS = (1.0, 2.0)
DISTANCE = 1.0
"""At which all ways are compared: that of the largest strength."""
RESAMPLES = 40
WARNING = "tempo: The judge 'embedded' chose the strengths that it reports."
SPEC = BenchmarkSpec(concepts=("mood=happy", "tempo"))


def benchmark(protocol: Protocol = "strict") -> xr.Dataset:
    """An evaluation of three ways of steering two concepts, in both directions, by two judges and two distances."""
    return _benchmark(protocol).copy(deep=True)


@cache
def _benchmark(protocol: Protocol) -> xr.Dataset:
    trials = {
        (concept, direction, stage): _trial(number, concept, direction, stage)
        for number, concept in enumerate(CONCEPTS)
        for direction in DIRECTIONS
        for stage in (REPORT, SELECTION)
    }
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # mixed models, which no figure shows, would take most of the time
        patch.setattr(curve_summaries, "mixed_slope", lambda *_: NO_SLOPE)
        result = benchmark_result(trials, protocol, RESAMPLES)
    result.attrs |= {"kind": "steering-benchmark", "schema_version": 3, "protocol": protocol}
    return result.assign_attrs(warnings=WARNING)


def _trial(number: int, concept: str, direction: str, stage: str) -> xr.Dataset:
    sign = 1 if direction == "towards" else -1
    trial = simulated_trial(
        SLOPES,
        [sign * strength for strength in STRENGTHS],
        pairs=6,
        seeds=1,
        nulls=3,
        noise=0.02,
        judges=JUDGES,
        prompts=f"{concept} {stage}",
        steered="negative" if sign > 0 else "positive",
        seed=number,
    )
    names = [concept, *(name for name in CONCEPTS if name != concept)]
    return trial.assign_coords(concept=names).assign_attrs(concept=concept)
