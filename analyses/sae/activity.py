"""How often, how strongly and where each feature is active, from the sparse codes of all clips."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from analyses.sae.codes import Axes, ClipCodes, FeatureCodes, by_feature

BINS = 30
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Activity(NamedTuple):
    """Summary statistics of all clips' feature activations, from which the table of features is made."""

    peak: Float[np.ndarray, "clip feature"]  # largest activation over steps and tokens
    peak_row: Int[np.ndarray, "clip feature"]  # its position: step position * tokens + token
    clip_mean: Float[np.ndarray, "clip feature"]
    step_mean: Float[np.ndarray, "step feature"]
    active: Int[np.ndarray, " feature"]  # number of rows (clip, step, token) with a positive activation
    rows: int  # of all clips together

    @property
    def density(self) -> Float[np.ndarray, " feature"]:
        """Fraction of the rows with a positive activation."""
        return self.active / self.rows


class Spread(NamedTuple):
    """The distribution of each feature's positive activations, and moments at some of its quantiles."""

    histogram: Int[np.ndarray, "feature bin"]
    clip: Int[np.ndarray, "feature quantile"]  # position in the clip table; -1 for a dead feature
    row: Int[np.ndarray, "feature quantile"]
    value: Float[np.ndarray, "feature quantile"]


def measure_activity(codes: Iterable[ClipCodes], axes: Axes) -> Activity:
    """Summarise the codes of all clips, one clip at a time."""
    peaks, peak_rows, clip_means = [], [], []
    step_sum, active = np.zeros(1), np.zeros(1, dtype=np.int64)
    for of_clip in codes:
        peak, peak_row = _peaks(of_clip)
        step_mean = _step_means(of_clip, axes)
        peaks.append(peak)
        peak_rows.append(peak_row)
        clip_means.append(step_mean.mean(axis=0))
        step_sum, active = step_sum + step_mean, active + of_clip.counts
    return Activity(
        peak=np.stack(peaks),
        peak_row=np.stack(peak_rows),
        clip_mean=np.stack(clip_means),
        step_mean=step_sum / len(peaks),
        active=active,
        rows=len(peaks) * axes.rows,
    )


def _peaks(codes: ClipCodes) -> tuple[Float[np.ndarray, " feature"], Int[np.ndarray, " feature"]]:
    """Return each feature's largest activation in a clip and its row, the first of equal ones; 0 and 0 without any."""
    is_active, feature = codes.counts > 0, codes.feature
    peak, peak_row = np.zeros(len(is_active), np.float32), np.zeros(len(is_active), np.int32)
    if is_active.any():
        peak[is_active] = np.maximum.reduceat(codes.value, codes.pointer[:-1][is_active])
        at_peak = np.flatnonzero(codes.value == peak[feature])
        active, first = np.unique(feature[at_peak], return_index=True)
        peak_row[active] = codes.row[at_peak[first]]
    return peak, peak_row


def _step_means(codes: ClipCodes, axes: Axes) -> Float[np.ndarray, "step feature"]:
    """Return each feature's mean over the tokens of each step, zeros included."""
    shape = (len(axes.steps), len(codes.counts))
    place = codes.row // axes.tokens * shape[1] + codes.feature
    sums = np.bincount(place, weights=codes.value, minlength=shape[0] * shape[1])
    return sums.reshape(shape) / axes.tokens


def measure_spread(codes: Iterable[ClipCodes], activity: Activity) -> Spread:
    """Return the distributions of positive activations, some features at a time (see `by_feature`).

    - histogram: counts in `BINS` equal bins from 0 to the feature's largest activation (inclusive).
    - moments at `QUANTILES` of the positive activations: the least activation that is at least as large as this
      fraction of them.
    """
    blocks = [_of_block(block, activity.peak.max(axis=0)) for block in by_feature(codes, activity.active)]
    return Spread(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _of_block(block: FeatureCodes, peak: Float[np.ndarray, " feature"]) -> Spread:
    count = np.diff(block.pointer)
    feature = block.feature
    fraction = block.value / peak[block.first + feature]
    bin_of = np.minimum((fraction * BINS).astype(np.int64), BINS - 1)
    histogram = np.bincount(feature * BINS + bin_of, minlength=len(count) * BINS)
    # The codes of a feature are in ascending order: the least one with `quantile` of them up to it.
    within = np.ceil(np.multiply.outer(count, QUANTILES)).astype(np.int64) - 1
    is_alive = (count > 0)[:, None]
    place = np.where(is_alive, block.pointer[:-1, None] + within, 0)

    def at_quantiles(values: np.ndarray, none: float) -> np.ndarray:
        return np.where(is_alive, values[place], none) if len(values) else np.full(place.shape, none)

    return Spread(
        histogram.reshape(len(count), BINS),
        at_quantiles(block.clip, -1.0).astype(np.int64),
        at_quantiles(block.row, 0.0).astype(np.int64),
        at_quantiles(block.value, np.nan),
    )
