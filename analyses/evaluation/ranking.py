"""Ranks of ways of steering, and how far the sample of pairs supports them."""

import numpy as np
from scipy import stats

from analyses.evaluation.replicates import Interval, Replicates, Values


def ranks(values: Values) -> Values:
    """Return the rank of each way, on axis 1, in every replicate: 1 for the largest, the mean of ties, NaN for NaN."""
    known = ~np.isnan(values)
    ranked = stats.rankdata(np.where(known, -values, np.inf), axis=1)
    return np.where(known, ranked, np.nan)


def rank_interval(values: Values, n: np.ndarray | int, replicates: Replicates) -> tuple[Interval, np.ndarray]:
    """Return the rank of each way with its percentile interval, and the share of resamples in which it is first.

    An interval of ranks says which order the pairs support; where those of two ways overlap, their order is not clear.
    Ways whose value is NaN in the sample have no rank.
    """
    found = ranks(values)
    interval = replicates.interval(found, n, corrected=False)
    resampled = found[1 + replicates.weights.shape[1] :]
    best = np.where(np.isnan(found[0]), np.nan, (resampled == np.nanmin(found[0], initial=1.0)).mean(axis=0))
    return interval, best
