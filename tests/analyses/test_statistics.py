"""Intervals against closed forms, and their coverage."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics import benjamini_hochberg, bootstrap_interval


def test_mean_interval_is_near_students_for_normal_data() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = bootstrap_interval(np.mean, (values,))
    t_low, t_high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx((t_low, t_high), abs=0.02)


def test_coverage_of_the_interval() -> None:
    rng = np.random.default_rng(1)
    inside = [
        low <= 0.0 <= high
        for low, high in (bootstrap_interval(np.mean, (rng.normal(size=30),)) for _ in range(150))
    ]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_equal_values_give_a_point() -> None:
    assert bootstrap_interval(np.mean, (np.full(5, 2.0),)) == (2.0, 2.0)


def test_samples_are_drawn_together() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(size=50) * 10
    low, high = bootstrap_interval(
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis), (shared + 1, shared)
    )
    assert (low, high) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("values", [np.array([1.0]), np.array([1.0, np.nan, 2.0])])
def test_too_few_or_missing_values_give_no_interval(values: np.ndarray) -> None:
    assert np.isnan(bootstrap_interval(np.mean, (values,))).all()


def test_benjamini_hochberg_by_hand() -> None:
    adjusted = benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(adjusted, [0.03, np.nan, 0.04, 0.04])
