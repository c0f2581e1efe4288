"""Trials of several concepts and of either end of the pairs together: signs, leakage, ranking, and what is missing."""

import json

import numpy as np
import pytest
import xarray as xr

from analyses.evaluation import curve_summaries
from analyses.evaluation.slopes import NO_SLOPE
from analyses.evaluation.steering_comparison import compare
from tests.analyses.evaluation.simulated_trial import simulated_trial

LEAK = -0.25
CONTROL = "strong (others)"


def of_tempo(trial: xr.Dataset) -> xr.Dataset:
    """The same trial of the other concept, "strong" of which takes a quarter of the mood per unit of strength away."""
    turned = trial.isel(concept=[1, 0]).assign_coords(concept=["mood", "tempo"])
    score = turned.score.copy()
    moved = LEAK * abs(turned.strength.where(turned.row == "strong", 0.0))
    score.loc[{"concept": "mood"}] += moved
    return turned.assign(score=score).assign_attrs(concept="tempo")


def away(trial: xr.Dataset) -> xr.Dataset:
    """A trial that steers prompts with the positive value: the real prompt lowers the score."""
    score = trial.score.copy()
    own = {"concept": trial.attrs["concept"]}
    score.loc[own | {"arm": "clean"}] = 2 * score.sel(own | {"arm": "corrupt"}) - score.sel(
        own | {"arm": "clean"}
    )
    return trial.assign(score=score).assign_attrs(spec=json.dumps({"steered": "positive"}))


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    up, down, common = (
        (1.0, 2.0),
        (-2.0, -1.0),
        {"noise": 0.02, "nulls": 0, "seeds": 1, "judges": {"one": 1.0}},
    )
    two = {"strong": 0.4, "weak": 0.1, CONTROL: 0.3}
    three = two | {"third": 0.2}
    moods = [
        simulated_trial(two, up, **common),
        away(simulated_trial(two, down, **common)),
    ]
    tempos = [
        of_tempo(simulated_trial(three, up, prompts="other", seed=1, **common)),
        away(of_tempo(simulated_trial(three, down, prompts="other", seed=1, **common))),
    ]
    with pytest.MonkeyPatch.context() as patch:  # slow, and tested elsewhere
        patch.setattr(curve_summaries, "mixed_slope", lambda strength, score: NO_SLOPE)
        whole = compare({"mood": moods, "tempo": tempos}, resamples=200)
    return whole.sel(scorer="one", measure="mel")


def test_both_signs_and_concepts_have_their_own_control_and_ratio(found: xr.Dataset) -> None:
    assert found.control.dims == ("sign", "concept")
    assert found.control.values == pytest.approx(1.0, abs=0.05)
    at_2 = found.ratio_at_distance.sel(way="strong")
    assert at_2.values == pytest.approx(0.8, abs=0.05)
    assert found.effect.sel(arm="strong × 2", sign="positive").values == pytest.approx(0.8, abs=0.05)
    assert found.effect.sel(arm="strong × -2", sign="negative").values == pytest.approx(-0.8, abs=0.05)
    assert found.effect.sel(arm="strong × 2", sign="negative").isnull().all()


def test_leakage_is_in_units_of_what_the_judged_concepts_prompts_do(found: xr.Dataset) -> None:
    strong = found.leakage.sel(way="strong")
    for sign in ("positive", "negative"):
        expected = {
            ("mood", "mood"): 0.8,
            ("mood", "tempo"): 0.0,
            ("tempo", "mood"): 2 * LEAK,
            ("tempo", "tempo"): 0.8,
        }
        for (concept, judged), part in expected.items():
            assert strong.sel(sign=sign, concept=concept, judged=judged) == pytest.approx(part, abs=0.06)
    assert found.leakage_hi.sel(way="strong", concept="tempo", judged="mood").max() < 0


def test_ways_that_all_concepts_have_are_ranked_over_them(found: xr.Dataset) -> None:
    methods = found.sel(way=["strong", "weak", "third"])
    assert methods.overall_rank.sel(sign="positive").values.tolist()[:2] == [1, 2]
    assert methods.overall_first.sel(sign="negative").values.tolist()[:2] == [1, 0]
    assert found.overall.sel(way="strong").values == pytest.approx(0.8, abs=0.05)
    assert found.overall.sel(way="third").isnull().all()
    assert (found.overall_n == 2).all()
    # Among its own concept's ways, the third one is second.
    assert methods["rank"].sel(sign="positive", concept="tempo").values.tolist() == [1, 3, 2]
    assert found["rank"].sel(concept="mood", way="third").isnull().all()
    assert found.slope_status.sel(concept="mood", way="third").values.tolist() == ["", ""]


def test_a_control_has_its_numbers_but_no_rank(found: xr.Dataset) -> None:
    control = found.sel(way=CONTROL)
    assert control.ratio_at_distance.values == pytest.approx(0.6, abs=0.06)
    assert control.overall.values == pytest.approx(0.6, abs=0.06)
    for name in ("rank", "first", "overall_rank", "overall_first"):
        assert control[name].isnull().all(), name


def test_warnings_name_the_concept(found: xr.Dataset) -> None:
    lines = found.attrs["warnings"].splitlines()
    assert len(lines) == 4  # the same prompts and the same judge chose, of either concept
    assert {line.split(":")[0] for line in lines} == {"mood", "tempo"}
    assert np.isfinite(found.selected_effect.sel(way="strong")).all()
