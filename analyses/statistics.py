"""Intervals, tests and rank correlations of patching maps and probes."""

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from cache.wording import counted

ALPHA = 0.05  # a corrected p-value up to here is significant
MIN_P = 1e-4
"""p-values are not given below this: probes' null is extrapolated there, and few random sign flips get there."""

RESAMPLES = 2000
CLUSTER_RESAMPLES = 4000
EXACT_PAIRS = 12  # up to here all 2**n sign patterns are tried
SIGN_FLIPS = 2**15 - 1  # beyond, that many random ones: the least p is 2 / 2**15
MIN_CELLS = 3  # fewer make no ranking
LEAST_TAIL = 1e-9  # its quantile is the smallest resampled value, and its normal quantile is finite


class ClusterBootstrap(NamedTuple):
    """A statistic of each cell, its interval, and its resampled values; NaN where undefined."""

    value: Float[np.ndarray, " cell"]
    low: Float[np.ndarray, " cell"]
    high: Float[np.ndarray, " cell"]
    resampled: Float[np.ndarray, "cell resample"]


def bootstrap_interval(
    statistic: Callable[..., np.ndarray | np.floating],
    samples: tuple[Float[np.ndarray, " n"], ...],
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the paired BCa bootstrap interval of `statistic(*samples, axis)` over the rows of `samples`.

    Bias-corrected and accelerated (Efron 1987), by `scipy.stats.bootstrap`.

    Returns:
        The lower and upper end. Both are the statistic's value if all resamples give the same value (BCa is then
        undefined), and NaN if there are fewer than two rows or any NaN.
    """
    if len(samples[0]) < 2 or any(np.isnan(sample).any() for sample in samples):
        return float("nan"), float("nan")
    point = float(statistic(*samples, axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered below
        interval = stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            confidence_level=confidence,
            n_resamples=RESAMPLES,
            method="percentile" if _constant(samples) else "BCa",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return (point, point) if np.isnan(low) or np.isnan(high) else (low, high)


def expanded_confidence(confidence: float, n: int) -> float:
    """Return the level at which a bootstrap percentile interval of `n` units is as wide as Student's t interval.

    The bootstrap omits the factor sqrt(n / (n - 1)) and uses normal instead of t quantiles. Each tail is therefore
    set to Phi(-sqrt(n / (n - 1)) t), where t is Student's quantile with n - 1 degrees of freedom (Hesterberg, What
    Teachers Should Know about the Bootstrap, The American Statistician 69, 2015). `n` is at least 2; for 2 or 3 the
    interval is the full range of the resamples.
    """
    t = stats.t.ppf((1 + confidence) / 2, n - 1)
    return float(1 - 2 * max(stats.norm.cdf(-np.sqrt(n / (n - 1)) * t), LEAST_TAIL))


def cluster_bootstrap(
    samples: tuple[Float[np.ndarray, "cluster cell"], ...],
    statistic: Callable[..., np.ndarray],
    confidence: float = 0.95,
    resamples: int = CLUSTER_RESAMPLES,
    seed: int = 0,
) -> ClusterBootstrap:
    """Compute the BCa bootstrap of `statistic(*totals)` over whole clusters, for all cells of a map at once.

    All cells with the same clusters use the same resamples (`scipy.stats.bootstrap` over the cluster indices), at the
    level `expanded_confidence` of the number of clusters.

    Args:
        samples: totals of each cluster, with the same clusters and cells in each array. NaN excludes the cluster for
            that cell.
        statistic: maps sums over clusters, (..., cell), to (..., cell).
        confidence: confidence level of the intervals.
        resamples: number of resamples.
        seed: seed of the resamples.

    Returns:
        Values, intervals and resampled values. An interval is a single point if no resample differs from the value,
        and NaN for fewer than two clusters.
    """
    known = ~np.isnan(samples).any(axis=0)
    low, high = np.full((2, known.shape[1]), np.nan)
    resampled = np.full((known.shape[1], resamples), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(*(np.where(known, sample, 0).sum(axis=0) for sample in samples))
        for pattern in np.unique(known, axis=1).T:
            cells = (known == pattern[:, None]).all(axis=0)
            if pattern.sum() > 1:
                some = tuple(sample[np.ix_(pattern, cells)] for sample in samples)
                low[cells], high[cells], resampled[cells] = _bootstrapped(
                    some, statistic, confidence, resamples, seed
                )
    same = (resampled == resampled[:, :1]).all(axis=1)
    return ClusterBootstrap(value, np.where(same, value, low), np.where(same, value, high), resampled)


def cluster_interval(
    samples: tuple[Float[np.ndarray, "cluster cell"], ...],
    statistic: Callable[..., np.ndarray],
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Compute one number, `statistic(*totals)`, and its percentile bootstrap interval over whole clusters.

    Like `cluster_bootstrap`, but `statistic` maps sums over clusters, (..., cell), to (...), such as a rank correlation
    of the cells. Such a number takes few values, for which BCa's corrections are erratic. The samples have no NaN.

    Returns:
        The value, and the interval's ends: NaN for fewer than two clusters or an undefined value, and the value itself
        if no resample differs from it.
    """
    value = float(statistic(*(sample.sum(axis=0) for sample in samples)))
    if len(samples[0]) < 2 or np.isnan(value):
        return value, np.nan, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high, resampled = _bootstrapped(
            samples,
            lambda *sums: statistic(*sums)[..., None],
            confidence,
            CLUSTER_RESAMPLES,
            seed,
            "percentile",
        )
    same = bool((resampled == resampled[:, :1]).all())
    return (value, value, value) if same else (value, float(low[0]), float(high[0]))


def sign_flip_p(
    changes: Float[np.ndarray, "cluster cell"], flips: int = SIGN_FLIPS, seed: int = 0
) -> Float[np.ndarray, " cell"]:
    """Compute the two-sided sign-flip p-value for a mean change of 0 over clusters, for each cell.

    Exact over all sign patterns for up to 12 clusters, else from `flips` random patterns, with the observed one
    included (`scipy.stats.permutation_test`, "samples"). All cells use the same patterns. NaN changes are ignored; a
    cell with only NaN has p NaN.
    """
    unknown = np.isnan(changes).all(axis=0)
    changes = np.nan_to_num(changes[~np.isnan(changes).all(axis=1)])
    n = len(changes)
    if n < 2:  # either sign is as likely
        return np.where(unknown, np.nan, 1.0)
    p = stats.permutation_test(
        (np.ones(n),),  # the sample whose signs are flipped: one for all cells
        lambda signs, axis: signs @ changes,  # noqa: ARG005
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**n if n <= EXACT_PAIRS else flips,
        random_state=np.random.default_rng(seed),
    ).pvalue
    return np.where(unknown, np.nan, p)


def smallest_p(n_pairs: int) -> float:
    """Return the smallest p-value that `sign_flip_p` can give for `n_pairs` pairs; NaN for 0 pairs.

    It occurs when all pairs change by the same amount: 2 / 2**n for up to 12 pairs, because only one sign pattern and
    its opposite give as large a mean. Correction over a map's cells never makes a p-value smaller.
    """
    return float(sign_flip_p(np.ones((n_pairs, 1)))[0])


def fewest_pairs() -> int:
    """Return the smallest number of pairs for which a p-value can be significant."""
    return next(n for n in itertools.count(1) if smallest_p(n) <= ALPHA)


def too_few_pairs(n_pairs: int) -> str:
    """Return a sentence if `n_pairs` (at least 1) are too few for any p-value to be significant, else ""."""
    smallest = smallest_p(n_pairs)
    if smallest <= ALPHA:
        return ""
    return (
        f"{counted(n_pairs, 'pair')}: smallest possible p is {smallest:.3g}; "
        f"at least {fewest_pairs()} pairs are needed for p ≤ {ALPHA:g}."
    )


def fewest_significant(smallest: float, n_tests: int) -> int:
    """Return how many of the tests must have the smallest p-value for it to be significant after the correction.

    The correction multiplies it by the number of tests over the number of those that have it.
    """
    return math.ceil(round(smallest * n_tests / ALPHA, 9))


def too_few_for_one(n_pairs: int, n_cells: int, cells: str = "cells") -> str:
    """Return a sentence if one of some `cells`, as of a map, cannot be significant unless others are, else ""."""
    smallest = smallest_p(n_pairs)
    needed = fewest_significant(smallest, n_cells)
    if smallest > ALPHA or needed <= 1:
        return ""
    return (
        f"{counted(n_pairs, 'pair')}: smallest possible p is {smallest:.3g}, so that after correction over {n_cells} "
        f"{cells} none can be significant unless at least {needed} are. Use more pairs or fewer {cells}."
    )


def benjamini_hochberg(p_values: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
    """Return Benjamini–Hochberg adjusted p-values over all cells; NaN cells stay NaN and are not counted."""
    adjusted = np.full(p_values.shape, np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known], method="bh")
    return adjusted


def rank_correlation(
    a: Float[np.ndarray, "*batch cell"], b: Float[np.ndarray, "*#batch cell"]
) -> Float[np.ndarray, "*batch"]:
    """Return Spearman's rank correlation over the last axis; NaN for fewer than 3 cells, constant values or any NaN."""
    if a.shape[-1] < MIN_CELLS:
        return np.full(a.shape[:-1], np.nan)
    ranks = [stats.rankdata(values, axis=-1, nan_policy="propagate") for values in (a, b)]
    x, y = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1)))


def halvings(n_clusters: int, count: int, seed: int = 0) -> Float[np.ndarray, "halving cluster"]:
    """Draw random halves of the clusters: 1 for those in the first half, which is not the larger one, else 0."""
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(n_clusters), (count, 1)), axis=1)
    return (order < n_clusters // 2).astype(float)


def separated(
    impact: Float[np.ndarray, " cell"],
    low: Float[np.ndarray, " cell"],
    high: Float[np.ndarray, " cell"],
    top: int,
) -> bool:
    """Whether the intervals of the `top` highest cells lie above the intervals of all other cells.

    This is the rule for early stopping of a sweep. Every check is another chance to stop by luck: after early
    stopping, intervals and p-values are somewhat too optimistic, more so with more checks. So check rarely (after
    doubling the pairs each time), and confirm important results on new pairs.

    Returns:
        False if at most `top` cells have an impact, or an interval is missing. Cells without an impact are ignored.

    Raises:
        ValueError: if `top` is below 1.
    """
    if top < 1:
        raise ValueError(f"`top` is {top}, and must be 1 or more.")
    known = np.flatnonzero(~np.isnan(impact))
    order = known[np.argsort(-impact[known], kind="stable")]
    if len(order) <= top:
        return False
    return bool(low[order[:top]].min() > high[order[top:]].max())


def _bootstrapped(
    samples: tuple[Float[np.ndarray, "cluster cell"], ...],
    statistic: Callable[..., np.ndarray],
    confidence: float,
    resamples: int,
    seed: int,
    method: Literal["BCa", "percentile"] = "BCa",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return interval ends (cell) and resampled values (cell, resample) of cells that have all clusters."""
    n = len(samples[0])
    whole = statistic(*(sample.sum(axis=0) for sample in samples))
    slack = 1e-12 * np.abs(whole)  # BCa counts resamples below and equal to the whole: ignore rounding

    def of_drawn(clusters: np.ndarray, axis: int) -> np.ndarray:  # noqa: ARG001  draws are on the last axis
        times = _times_drawn(clusters, n)
        values = statistic(*(times @ sample for sample in samples))
        values = np.where(np.abs(values - whole) <= slack, whole, values)
        return np.moveaxis(values, -1, 0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # its NaN says so
        result = stats.bootstrap(
            (np.arange(n),),
            of_drawn,
            vectorized=True,
            confidence_level=expanded_confidence(confidence, n),
            n_resamples=resamples,
            method=method,
            random_state=np.random.default_rng(seed),
        )
    return result.confidence_interval.low, result.confidence_interval.high, result.bootstrap_distribution


def _times_drawn(drawn: Int[np.ndarray, "*resamples draw"], n: int) -> Float[np.ndarray, "*resamples unit"]:
    """Count how often each of `n` units is drawn in each resample."""
    rows = drawn.reshape(-1, drawn.shape[-1])
    offset = n * np.arange(len(rows))[:, None]
    times = np.bincount((rows + offset).ravel(), minlength=n * len(rows))
    return times.reshape(*drawn.shape[:-1], n).astype(float)


def _constant(samples: tuple[np.ndarray, ...]) -> bool:
    return all(np.ptp(sample) == 0 for sample in samples)
