"""Ranks of ways of steering over resamples: by hand."""

import numpy as np

from analyses.evaluation.ranking import rank_interval, ranks
from analyses.evaluation.replicates import Replicates


def test_the_largest_is_first_ties_share_and_unknown_ones_have_no_rank() -> None:
    values = np.array([[3.0, 5.0, 3.0, np.nan], [1.0, 2.0, 3.0, 4.0]])
    expected = [[2.5, 1, 2.5, np.nan], [4, 3, 2, 1]]
    np.testing.assert_array_equal(ranks(values), expected)


def test_intervals_of_ranks_say_which_order_the_pairs_support() -> None:
    rng = np.random.default_rng(0)
    pairs = np.array([0.0, 2.0, 2.05])[:, None] + 0.5 * rng.normal(size=(12, 1, 3, 1))
    replicates = Replicates(12, resamples=1000)
    interval, first = rank_interval(replicates.means(pairs), 12, replicates)
    assert (interval.low[0, 0], interval.high[0, 0]) == (3, 3)  # clearly the last
    assert [(interval.low[way, 0], interval.high[way, 0]) for way in (1, 2)] == [(1, 2), (1, 2)]
    assert first[0, 0] == 0
    assert first[1:, 0].sum() == 1
    assert (first[1:, 0] > 0.05).all()
