"""Random bands: what they hold, and which ways are nulls of which."""

import numpy as np
import pytest

from analyses.evaluation.null_bands import band, nulls_of
from benchmarks.evaluation_simulations import band_level
from tests.analyses.evaluation.simulated_trial import simulated_trial


@pytest.mark.parametrize("nulls", [3, 10])
def test_the_band_holds_its_level(nulls: int) -> None:
    assert band_level(16, nulls, 100, resamples=400) <= 0.05


def test_a_band_of_many_nulls_is_no_wider_than_it_must_be() -> None:
    values = np.random.default_rng(0).normal(size=(50, 400, 1))
    low, high = band(values) or (np.nan, np.nan)
    assert (low, high) == (pytest.approx(-2.03, abs=0.06), pytest.approx(2.03, abs=0.06))


def test_a_band_of_few_nulls_is_that_of_a_prediction_interval() -> None:
    even = np.linspace(0, 1, 2001)[:, None]
    low, high = band([even] * 10) or (np.nan, np.nan)
    tail = 0.0062  # of a normal value beyond 2.2622 (t of 9 degrees of freedom) × √(11 / 9)
    assert (low[0], high[0]) == (pytest.approx(tail, abs=5e-4), pytest.approx(1 - tail, abs=5e-4))


def test_unknown_values_are_ignored_and_one_null_makes_no_band() -> None:
    values = np.stack([np.full((4, 1), np.nan), np.ones((4, 1))])
    assert band(values) == (1.0, 1.0)
    assert np.isnan(band(values[:1].repeat(2, axis=0))).all()
    assert band(values[1:]) is None


def test_nulls_belong_to_the_way_of_their_arms() -> None:
    trial = simulated_trial(nulls=2)
    assert nulls_of(trial, "strong") == ["random 0", "random 1"]
    assert nulls_of(trial, "weak") == []
