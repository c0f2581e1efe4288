"""Intervals, tests and rankings against closed forms and SciPy, and the coverage of the plain interval."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics import (
    ALPHA,
    CLUSTER_RESAMPLES,
    SIGN_FLIPS,
    benjamini_hochberg,
    bootstrap_interval,
    cluster_bootstrap,
    expanded_confidence,
    fewest_pairs,
    halvings,
    rank_correlation,
    separated,
    sign_flip_p,
    smallest_p,
    too_few_for_one,
    too_few_pairs,
)


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


@pytest.mark.parametrize("n", [5, 8, 30])
def test_the_expanded_level_makes_a_normal_interval_students(n: int) -> None:
    level = expanded_confidence(0.95, n)
    plug_in = np.sqrt((n - 1) / n)  # the bootstrap's standard error of a mean, against s / sqrt(n)
    assert stats.norm.ppf((1 + level) / 2) * plug_in == pytest.approx(stats.t.ppf(0.975, n - 1))
    assert expanded_confidence(0.95, 10**6) == pytest.approx(0.95, abs=1e-5)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a / b


def test_cells_share_the_resamples_that_scipy_draws() -> None:
    rng = np.random.default_rng(3)
    top, bottom = rng.normal(1, 1, (9, 5)), rng.normal(4, 1, (9, 5))
    boot = cluster_bootstrap((top, bottom), ratio)
    for i in range(5):
        expected = stats.bootstrap(
            (top[:, i], bottom[:, i]),
            lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
            paired=True,
            confidence_level=expanded_confidence(0.95, 9),
            n_resamples=CLUSTER_RESAMPLES,
            random_state=np.random.default_rng(0),
        )
        np.testing.assert_allclose(boot.resampled[i], expected.bootstrap_distribution)
        ends = expected.confidence_interval
        assert (boot.low[i], boot.high[i]) == pytest.approx((ends.low, ends.high), abs=2e-3)


def test_a_cell_is_resampled_over_the_clusters_it_has() -> None:
    rng = np.random.default_rng(4)
    top, bottom = rng.normal(1, 1, (8, 3)), np.ones((8, 3))
    top[5:, 1], bottom[7, 2] = np.nan, np.nan
    boot = cluster_bootstrap((top, bottom), ratio)
    for i, n in enumerate((8, 5, 7)):
        alone = cluster_bootstrap((top[:n, i : i + 1], bottom[:n, i : i + 1]), ratio)
        assert (boot.value[i], boot.low[i], boot.high[i]) == pytest.approx(
            (alone.value[0], alone.low[0], alone.high[0])
        )


def test_fewer_than_two_clusters_give_no_interval() -> None:
    top = np.array([[1.0, 2.0], [np.nan, 3.0]])
    boot = cluster_bootstrap((top, np.ones((2, 2))), ratio)
    assert np.isnan([boot.low[0], boot.high[0]]).all()
    assert boot.value[0] == 1.0
    assert boot.low[1] == 2.0 < boot.high[1] == 3.0


@pytest.mark.parametrize("n", [6, 12])
def test_sign_flips_are_scipys_cell_by_cell(n: int) -> None:
    changes = np.random.default_rng(5).normal(0.5, 1, (n, 4))
    expected = [
        stats.permutation_test(
            (change,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=2**n
        ).pvalue
        for change in changes.T
    ]
    assert sign_flip_p(changes) == pytest.approx(expected)


def test_many_pairs_are_flipped_at_random_and_the_observed_signs_count() -> None:
    changes = np.column_stack([np.ones(40), np.zeros(40), np.random.default_rng(6).normal(0.3, 1, 40)])
    p = sign_flip_p(changes)
    assert list(p[:2]) == [2 / (SIGN_FLIPS + 1), 1.0]
    assert p[2] == pytest.approx(stats.ttest_1samp(changes[:, 2], 0).pvalue, abs=0.01)
    np.testing.assert_array_equal(p, sign_flip_p(changes))


def test_missing_changes_are_left_out_of_the_sign_flips() -> None:
    changes = np.random.default_rng(7).normal(0.5, 1, (9, 3))
    changes[8], changes[6:, 1], changes[:, 2] = np.nan, np.nan, np.nan
    p = sign_flip_p(changes)
    assert p[0] == pytest.approx(sign_flip_p(changes[:8, :1])[0])
    assert p[1] == pytest.approx(sign_flip_p(changes[:6, 1:2])[0])
    assert np.isnan(p[2])
    assert sign_flip_p(np.array([[3.0, np.nan]])) == pytest.approx([1.0, np.nan], nan_ok=True)


@pytest.mark.parametrize("n", range(1, 13))
def test_the_smallest_p_is_that_of_two_sign_patterns(n: int) -> None:
    assert smallest_p(n) == pytest.approx(2 / 2**n)


@pytest.mark.parametrize("n", [13, 15, 40])
def test_random_sign_patterns_have_a_smallest_p_too(n: int) -> None:
    """Patterns without a flip among the random ones count with the observed one: about SIGN_FLIPS / 2**n of them."""
    unflipped = smallest_p(n) * (SIGN_FLIPS + 1) / 2 - 1
    assert unflipped == pytest.approx(round(unflipped))
    assert unflipped == pytest.approx(SIGN_FLIPS / 2**n, abs=4)
    assert n < 40 or unflipped == 0


@pytest.mark.parametrize("n", [2, 3, 6, 9, 14])
def test_no_changes_give_less_than_the_smallest_p(n: int) -> None:
    p = sign_flip_p(np.random.default_rng(10).normal(1, 1, (n, 200)))
    assert p.min() == pytest.approx(smallest_p(n))


def test_no_pairs_have_no_p() -> None:
    assert np.isnan(smallest_p(0))


def test_the_fewest_pairs_are_those_with_which_something_can_be_significant() -> None:
    assert fewest_pairs() == 6
    assert smallest_p(6) <= ALPHA < smallest_p(5)


def test_correction_never_makes_a_p_value_smaller() -> None:
    few = sign_flip_p(np.random.default_rng(11).normal(5, 1, (5, 30)))
    assert benjamini_hochberg(few).min() >= smallest_p(5) > ALPHA


@pytest.mark.parametrize(
    ("n", "sentence"),
    [
        (1, "1 pair: smallest possible p is 1; at least 6 pairs are needed for p ≤ 0.05."),
        (3, "3 pairs: smallest possible p is 0.25; at least 6 pairs are needed for p ≤ 0.05."),
        (5, "5 pairs: smallest possible p is 0.0625; at least 6 pairs are needed for p ≤ 0.05."),
        (6, ""),
        (40, ""),
    ],
)
def test_too_few_pairs_are_told(n: int, sentence: str) -> None:
    assert too_few_pairs(n) == sentence


@pytest.mark.parametrize(
    ("pairs", "cells", "needed"),
    [(6, 1, 0), (6, 2, 2), (6, 16, 10), (12, 102, 0), (12, 103, 2), (12, 256, 3), (5, 9, 0)],
)
def test_the_correction_may_need_more_than_one_cell(pairs: int, cells: int, needed: int) -> None:
    """Of 5 pairs `too_few_pairs` says that no number of cells is enough."""
    sentence = too_few_for_one(pairs, cells)
    assert (f"at least {needed} are" in sentence) if needed else sentence == ""
    if needed:
        for count in (needed - 1, needed):
            p = np.r_[np.full(count, smallest_p(pairs)), np.ones(cells - count)]
            assert (benjamini_hochberg(p).min() <= ALPHA) == (count == needed)


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.integers(0, 5, (6, 9)).astype(float), rng.normal(size=9)
    expected = [stats.spearmanr(row, b).statistic for row in a]
    np.testing.assert_allclose(rank_correlation(a, b), expected)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 1.0, 1.0], [1.0, np.nan, 2.0, 3.0], []])
def test_what_has_no_order_has_no_rank_correlation(values: list[float]) -> None:
    cells = np.array(values)
    assert np.isnan(rank_correlation(cells, cells))


@pytest.mark.parametrize("n", [2, 5, 12])
def test_halvings_are_random_halves(n: int) -> None:
    halves = halvings(n, 4000)
    assert set(np.unique(halves)) == {0.0, 1.0}
    assert (halves.sum(axis=1) == n // 2).all()
    np.testing.assert_allclose(halves.mean(axis=0), (n // 2) / n, atol=0.03)


@pytest.mark.parametrize(
    ("low", "high", "top", "answer"),
    [
        ([0.5, 0.1, 0.0], [0.9, 0.4, 0.2], 1, True),
        ([0.3, 0.1, 0.0], [0.9, 0.4, 0.2], 1, False),
        ([0.3, 0.1, 0.0], [0.9, 0.4, 0.05], 2, True),
        ([0.3, 0.1, 0.0], [0.9, 0.4, 0.2], 2, False),
        ([0.5, 0.1, 0.0], [0.9, 0.4, 0.2], 3, False),
        ([np.nan, 0.1, 0.0], [np.nan, 0.4, 0.2], 1, False),
    ],
)
def test_the_top_cells_are_separated_when_their_intervals_lie_above(
    low: list[float], high: list[float], top: int, answer: bool
) -> None:
    assert separated(np.array([0.7, 0.3, 0.02]), np.array(low), np.array(high), top) is answer


def test_unknown_cells_are_not_separated_from() -> None:
    impact, low, high = (
        np.array([0.7, np.nan, 0.1]),
        np.array([0.5, np.nan, 0.0]),
        np.array([0.9, np.nan, 0.2]),
    )
    assert separated(impact, low, high, 1)
    assert not separated(np.full(3, np.nan), low, high, 1)
    with pytest.raises(ValueError, match="top"):
        separated(impact, low, high, 0)
