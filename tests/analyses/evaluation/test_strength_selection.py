"""Choosing strengths: who chooses for whom, and that choosing on the reporting judge and prompts inflates its score."""

import numpy as np
import pytest
import xarray as xr

from analyses.evaluation.dose_curves import trial_means
from analyses.evaluation.replicates import Replicates
from analyses.evaluation.steering_summary import arm_summaries
from analyses.evaluation.strength_selection import (
    SAME_PROMPTS,
    selected,
    selecting_judges,
    selection_warnings,
)
from benchmarks.evaluation_simulations import inflation
from tests.analyses.evaluation.simulated_trial import simulated_trial


def of_arms(trial: xr.Dataset) -> xr.Dataset:
    return arm_summaries(trial, trial_means(trial, Replicates(trial.sizes["pair"], resamples=50)))


def test_others_choose_for_a_judge_if_there_are_any() -> None:
    able = xr.DataArray([True, True, False], {"scorer": ["a", "b", "deaf"]}, "scorer")
    chosen = {name: selecting_judges(name, able) for name in ("a", "b", "deaf", "new")}
    assert chosen == {"a": ["b"], "b": ["a"], "deaf": ["a", "b"], "new": ["a", "b"]}
    assert selecting_judges("a", able[:1]) == ["a"]
    assert selecting_judges("deaf", able[2:]) == []


def test_the_reported_numbers_are_those_of_the_strength_that_others_chose() -> None:
    trial, other = simulated_trial(noise=0.01), simulated_trial(noise=0.01, prompts="other", seed=1)
    # On other prompts, judge "other" prefers strength 1 of "strong": at 2 it hears nothing.
    other["score"].loc[{"arm": "strong × 2", "scorer": "other"}] = other.score.sel(
        arm="corrupt", scorer="other"
    )
    report = of_arms(trial)
    found = selected(trial, report, of_arms(other)).sel(way="strong", sign="positive", measure="mel")
    assert found.selected_arm.values.tolist() == ["strong × 1", "strong × 2"]  # of "one", and of "other"
    assert found.selected_strength.values.tolist() == [1.0, 2.0]
    assert found.selected_by.values.tolist() == ["other", "one"]
    for scorer, arm in (("one", "strong × 1"), ("other", "strong × 2")):
        for end in ("", "_lo", "_hi"):
            reported = found[f"selected_effect{end}"].sel(scorer=scorer)
            assert reported == report[f"effect{end}"].sel(arm=arm, scorer=scorer)


def test_a_single_strength_is_reported_without_a_choice() -> None:
    trial, other = simulated_trial(), simulated_trial(prompts="other")
    alone = trial.sel(arm=[name != "strong × 1" for name in trial.arm.values])
    choosing = other.sel(arm=[not str(name).startswith("strong") for name in other.arm.values])
    found = selected(alone, of_arms(alone), of_arms(choosing)).sel(way="strong", sign="positive")
    assert set(found.selected_arm.values.flat) == {"strong × 2"}


def test_no_strength_is_chosen_where_none_does_better() -> None:
    trial, other = (
        simulated_trial(),
        simulated_trial({"strong": 0.4, "weak": 0.0}, noise=0.0, prompts="other"),
    )
    found = selected(trial, of_arms(trial), of_arms(other)).sel(sign=["positive"])
    assert (found.selected_arm.sel(way="weak") == "").all()
    assert found.selected_effect.sel(way="weak").isnull().all()
    assert (found.selected_arm.sel(way="strong") != "").all()
    told = selection_warnings(trial, other, found)
    assert [line[:29] for line in told] == ["weak: no strength is chosen t"] * 2


def test_the_same_prompts_or_judge_are_warned_of() -> None:
    trial, other = simulated_trial(), simulated_trial(prompts="other")
    coords = {"scorer": ["one", "other"], "way": ["strong"]}
    chosen = xr.DataArray([["strong × 1"], ["strong × 2"]], coords, ("scorer", "way"))
    judges = xr.Dataset({"selected_arm": chosen, "selected_by": ("scorer", ["other", "one"])})
    assert selection_warnings(trial, other, judges) == []
    assert selection_warnings(trial, None, judges) == [SAME_PROMPTS]
    assert selection_warnings(trial, trial, judges) == [SAME_PROMPTS]
    alone = judges.isel(scorer=[0]).assign(selected_by=("scorer", ["one"]))
    assert [line[:15] for line in selection_warnings(trial, other, alone)] == ["The judge 'one'"]


def test_a_score_that_chose_itself_is_inflated() -> None:
    by = inflation(pairs=8, error=0.3, repetitions=1000)
    best_of_7 = 1.352  # expected largest of 7 normal values
    assert by["same prompts, same judge"] == pytest.approx(best_of_7 * np.sqrt(1 / 8 + 0.09), abs=0.03)
    assert by["other prompts, other judge"] == pytest.approx(0.0, abs=0.05)
    assert by["other prompts, same judge"] > 0.2
    assert by["same prompts, other judge"] > 0.2
