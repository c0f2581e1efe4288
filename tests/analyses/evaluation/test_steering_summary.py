"""The whole summary of a trial: planted effects are found, and a deaf judge's numbers are not given."""

import numpy as np
import pytest
import xarray as xr

from analyses.evaluation.steering_summary import summarise
from tests.analyses.evaluation.simulated_trial import simulated_trial

RESAMPLES = 200


@pytest.fixture(scope="module")
def summary() -> xr.Dataset:
    trial = simulated_trial(judges={"one": 1.0, "deaf": 0.0}, seeds=1, noise=0.02)
    return summarise(
        trial, simulated_trial(prompts="other", seed=1, judges={"one": 1.0}), resamples=RESAMPLES
    )


def of_one(summary: xr.Dataset, name: str, way: str, sign: str) -> float:
    found = summary[name].sel(way=way, sign=sign)
    own = {dim: value for dim, value in {"scorer": "one", "measure": "mel"}.items() if dim in found.dims}
    return float(found.sel(own))


@pytest.mark.parametrize("sign", ["positive", "negative"])
@pytest.mark.parametrize(("way", "slope"), [("strong", 0.4), ("weak", 0.1)])
def test_planted_effects_are_found(summary: xr.Dataset, way: str, slope: float, sign: str) -> None:
    # At strengths 1 and 2 the distances are .5 and 1, which both ways reach.
    for name, planted in {
        "slope": slope,
        "slope_bootstrap": slope,
        "offset": slope,
        "offset_distance": 0.5,
        "strength_at_distance": 2.0,
        "effect_at_distance": 2 * slope,
        "ratio_at_distance": 2 * slope,
        "area": slope,  # half of 1 × 2 slope
    }.items():
        assert of_one(summary, name, way, sign) == pytest.approx(planted, abs=0.06), name
        low, high = (of_one(summary, name + end, way, sign) for end in ("_lo", "_hi"))
        assert low - 1e-9 <= of_one(summary, name, way, sign) <= high + 1e-9, name
    assert of_one(summary, "violations", way, sign) == 0
    assert of_one(summary, "curve_n", way, sign) == 10
    assert of_one(summary, "rank", way, sign) == (1 if way == "strong" else 2)
    assert of_one(summary, "first", way, sign) == (way == "strong")


def test_ratios_and_curves_rest_on_the_runs_that_have_both_clips() -> None:
    trial = simulated_trial({"strong": 0.5}, nulls=0, seeds=1, noise=0.0, judges={"one": 1.0})
    # The real prompt does five times as much in a pair, in which the strongest steered clip has no score.
    trial.score.loc[{"concept": "mood", "pair": 0, "arm": "clean"}] += 4.0
    trial.score.loc[{"concept": "mood", "pair": 0, "arm": "strong × 2"}] = np.nan
    found = summarise(trial, resamples=RESAMPLES).sel(scorer="one", measure="mel")
    assert found.control == pytest.approx(1.4)
    assert found.ratio.sel(arm="strong × 2") == pytest.approx(1.0)
    assert found.ratio.sel(arm="strong × 1") == pytest.approx(0.5 / 1.4)
    assert found.n_ratio.sel(arm=["strong × 1", "strong × 2"]).values.tolist() == [10, 9]
    of_way = found.sel(way="strong", sign="positive")
    assert of_way.ratio_at_distance == pytest.approx(1.0)
    assert of_way.curve_n == 9


def test_a_deaf_judge_says_nothing(summary: xr.Dataset) -> None:
    deaf = summary.sel(scorer="deaf")
    assert "not interpretable" in str(deaf.reason.values)
    numbers = [name for name in deaf if deaf[name].dtype.kind == "f" and "scorer" in summary[name].dims]
    shown = [name for name in numbers if deaf[name].notnull().any() and not name.startswith("control")]
    assert shown == []
    assert np.isfinite(summary.effect.sel(scorer="one", arm="strong × 1"))
