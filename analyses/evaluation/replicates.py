"""Replicates of a sample of pairs: itself, itself without each pair in turn, and bootstrap resamples of it.

A statistic is computed for all of them at once, along their axis; its interval is then a paired one, over whole pairs
with all their seeds and arms.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.special import ndtr, ndtri

from analyses.statistics import CLUSTER_RESAMPLES, expanded_confidence

CONFIDENCE = 0.95
LEAST_DEFINED = 0.95
"""A statistic that fewer of the resamples have is left without an interval."""
LEAST_DENOMINATOR = 1e-9  # of BCa's correction: below, the end is the most extreme resample

Values = Float[np.ndarray, "replicate *cells"]
"""A statistic of every replicate, by cell."""


class Interval(NamedTuple):
    """A statistic of the sample with the ends of its interval, by cell."""

    value: Float[np.ndarray, "*cells"]
    low: Float[np.ndarray, "*cells"]
    high: Float[np.ndarray, "*cells"]

    def named(self, name: str, *dims: str) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Return the variables `name`, `name_lo` and `name_hi` of a Dataset."""
        return {name: (dims, self.value), f"{name}_lo": (dims, self.low), f"{name}_hi": (dims, self.high)}


class Replicates:
    """Weights of each pair in the sample, in the sample without one pair, and in resamples drawn with replacement.

    Attributes:
        weights: how often each pair is taken: 1 + n + `resamples` rows for n pairs.
    """

    weights: Float[np.ndarray, "replicate pair"]

    def __init__(self, pairs: int, resamples: int = CLUSTER_RESAMPLES, seed: int = 0) -> None:
        drawn = np.random.default_rng(seed).multinomial(pairs, np.full(pairs, 1 / pairs), size=resamples)
        self.weights = np.vstack([np.ones(pairs), 1 - np.eye(pairs), drawn])

    def means(self, values: Float[np.ndarray, "pair seed *cells"]) -> Values:
        """Return the mean over pairs and seeds of each replicate, ignoring NaN; NaN where nothing is known."""
        known = ~np.isnan(values)
        total = np.tensordot(self.weights, np.where(known, values, 0).sum(axis=1), axes=1)
        count = np.tensordot(self.weights, known.sum(axis=1).astype(float), axes=1)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    def interval(
        self,
        values: Values,
        n: Int[np.ndarray, "*#cells"] | int,
        confidence: float = CONFIDENCE,
        corrected: bool = True,
    ) -> Interval:
        """Return a statistic and its interval, at the level `expanded_confidence` of the number of pairs.

        BCa (Efron 1987), or the percentile interval if not `corrected`, as is right for ranks and shares, which take
        few values. A single point if all resamples give the same value.

        Args:
            values: the statistic of every replicate, NaN where it is undefined.
            n: how many pairs it rests on; with fewer than 2 there is no interval.
            confidence: confidence level.
            corrected: whether bias and skewness are corrected for.

        Returns:
            The statistic of the sample and the ends, NaN where the sample or too many resamples have none.
        """
        n_pairs = self.weights.shape[1]
        shape = values.shape[1:]
        flat = values.reshape(len(values), -1)
        whole, without, resampled = flat[0], flat[1 : n_pairs + 1], flat[n_pairs + 1 :]
        slack = 1e-12 * np.abs(whole)  # resamples below and equal to the whole are counted: ignore rounding
        resampled = np.where(np.abs(resampled - whole) <= slack, whole, resampled)
        n_of_cell = np.broadcast_to(n, shape).ravel()
        z = ndtri((1 - _levels(n_of_cell, confidence)) / 2) * np.array([[1], [-1]])
        tails = ndtr(z)
        if corrected:
            tails = _corrected(whole, without, resampled, z)
        low, high = _quantiles(resampled, tails)
        known = ~np.isnan(resampled)
        defined = (known.mean(axis=0) >= LEAST_DEFINED) & ~np.isnan(whole) & (n_of_cell > 1)
        low, high = (np.where(defined, end, np.nan).reshape(shape) for end in (low, high))
        return Interval(whole.reshape(shape), low, high)

    def student_interval(
        self, values: Values, n: Int[np.ndarray, "*#cells"] | int, confidence: float = CONFIDENCE
    ) -> Interval:
        """Return a statistic and its interval by Student's t, with the jackknife's standard error over pairs.

        With n - 1 degrees of freedom for n pairs: of a mean over pairs, that is the usual interval, which is exact for
        normal values (Tukey 1958). Args and returns as in `interval`.
        """
        n_pairs = self.weights.shape[1]
        whole, without = values[0], values[1 : n_pairs + 1]
        used = np.broadcast_to(n, whole.shape)
        squares = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            half = stats.t.ppf((1 + confidence) / 2, used - 1) * np.sqrt((used - 1) / used * squares)
        half = np.where(used > 1, half, np.nan)
        return Interval(whole, whole - half, whole + half)


def _levels(n: Int[np.ndarray, " cell"], confidence: float) -> Float[np.ndarray, " cell"]:
    of_n = {count: expanded_confidence(confidence, int(count)) for count in np.unique(n) if count > 1}
    return np.array([of_n.get(count, confidence) for count in n])


def _corrected(
    whole: Float[np.ndarray, " cell"],
    without: Float[np.ndarray, "pair cell"],
    resampled: Float[np.ndarray, "resample cell"],
    z: Float[np.ndarray, "2 cell"],
) -> Float[np.ndarray, "2 cell"]:
    """Return the tails that BCa takes in place of those of `z`; those of `z` where it is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        count = (~np.isnan(resampled)).sum(axis=0)
        below = (resampled < whole).sum(axis=0) + (resampled == whole).sum(axis=0) / 2
        bias = ndtri(below / count)
        known = (~np.isnan(without)).sum(axis=0)
        away = np.nan_to_num(np.nansum(without, axis=0) / known - without)
        skewness = (away**3).sum(axis=0) / (6 * (away**2).sum(axis=0) ** 1.5)
        shifted = bias + z
        tails = ndtr(bias + shifted / np.maximum(1 - skewness * shifted, LEAST_DENOMINATOR))
    return np.where(np.isfinite(bias) & np.isfinite(skewness), tails, ndtr(z))


def _quantiles(
    resampled: Float[np.ndarray, "resample cell"], tails: Float[np.ndarray, "2 cell"]
) -> Float[np.ndarray, "2 cell"]:
    """Return quantiles of each cell's own levels, interpolated, of the values that are not NaN."""
    in_order = np.sort(resampled, axis=0)  # NaN last
    last = (~np.isnan(resampled)).sum(axis=0) - 1
    place = np.clip(np.nan_to_num(tails) * last, 0, None)
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, np.maximum(last, 0))
    lower, upper = (np.take_along_axis(in_order, at, axis=0) for at in (before, after))
    return lower + (place - before) * (upper - lower)
