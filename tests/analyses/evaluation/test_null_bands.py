"""Random bands: what they hold, and which ways are nulls of which."""

import numpy as np
import pytest

from analyses.evaluation.null_bands import band, nulls_of
from benchmarks.evaluation_simulations import band_level
from tests.analyses.evaluation.simulated_trial import simulated_trial


@pytest.mark.parametrize(("nulls", "between"), [(3, 0.1), (10, 0.0), (10, 1.0)])
def test_the_band_holds_its_level_however_much_null_ways_differ(nulls: int, between: float) -> None:
    assert 0.03 <= band_level(8, nulls, 1000, between) <= 0.07  # 3 standard errors about .05


def test_a_band_is_the_prediction_interval_of_one_more() -> None:
    low, high = band(np.array([[1.0], [2.0], [3.0], [np.nan]]))
    half = 4.302653 * np.sqrt(1 + 1 / 3)  # t of 2 degrees of freedom
    assert (low[0], high[0]) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_with_fewer_than_three_known_nulls_there_is_no_band() -> None:
    values = np.array([[1.0, 1.0], [2.0, 2.0], [np.nan, 3.0]])
    low, high = band(values)
    assert np.isnan([low[0], high[0]]).all() and np.isfinite([low[1], high[1]]).all()
    assert np.isnan(band(np.zeros((0, 2)))).all()


def test_nulls_belong_to_the_way_of_their_arms() -> None:
    trial = simulated_trial(nulls=2)
    assert nulls_of(trial, "strong") == ["random 0", "random 1"]
    assert nulls_of(trial, "weak") == []
