"""Intervals over replicates of a sample of pairs: against the bootstrap of maps, and where there is none."""

import numpy as np
import pytest
from scipy import stats

from analyses.evaluation.replicates import Replicates
from analyses.statistics import cluster_bootstrap
from tests.tolerances import assert_close


def test_means_are_over_the_rows_that_are_known() -> None:
    values = np.array([[[1.0], [3.0]], [[10.0], [np.nan]], [[np.nan], [np.nan]]])
    replicates = Replicates(3, resamples=50)
    means = replicates.means(values)[:, 0]
    assert_close(means[:4], [14 / 3, 10.0, 2.0, 14 / 3])
    drawn = replicates.weights[4:]
    known = drawn[:, 0] * 2 + drawn[:, 1]
    assert (drawn.sum(axis=1) == 3).all()
    assert np.isnan(means[4:]).tolist() == (known == 0).tolist()


@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_are_those_of_maps(skewed: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, size=(9, 1, 3)) if skewed else rng.normal(size=(9, 1, 3))
    replicates = Replicates(9, resamples=20_000)
    found = replicates.interval(replicates.means(values), 9)
    known = cluster_bootstrap((values[:, 0], np.ones((9, 3))), lambda total, n: total / n, resamples=20_000)
    width = known.high - known.low
    assert_close(found.value, known.value)
    assert (np.abs(found.low - known.low) < 0.05 * width).all()
    assert (np.abs(found.high - known.high) < 0.05 * width).all()


def test_student_s_interval_of_a_mean_is_the_usual_one() -> None:
    values = np.random.default_rng(0).normal(size=(7, 2, 3))
    values[5:, :, 1] = np.nan  # pairs that are not known
    values[1:, :, 2] = np.nan
    replicates = Replicates(7, resamples=1)
    found = replicates.student_interval(replicates.means(values), np.array([7, 5, 1]))
    for cell, n in ((0, 7), (1, 5)):
        of_pairs = values[:n, :, cell].mean(axis=1)
        known = stats.t.interval(0.95, n - 1, of_pairs.mean(), stats.sem(of_pairs))
        assert_close([found.low[cell], found.high[cell]], known)
    assert np.isnan([found.low[2], found.high[2]]).all()


def test_there_is_no_interval_without_enough_pairs_or_resamples() -> None:
    replicates = Replicates(4, resamples=200)
    values = replicates.means(np.arange(4.0)[:, None, None] * np.ones(3))
    values[-20:, 1] = np.nan  # 10 % of the resamples
    found = replicates.interval(values, np.array([1, 4, 4]))
    assert np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [True, True, False]
    assert found.value.tolist() == [1.5] * 3


def test_an_interval_of_equal_resamples_is_a_point() -> None:
    replicates = Replicates(5, resamples=100)
    found = replicates.interval(replicates.means(np.full((5, 2, 1), 0.3)), 5)
    assert found.low == found.high == found.value
