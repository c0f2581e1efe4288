"""Ways of steering at equal distance from the unsteered clips: at which strength, and what they have moved there.

A strength of one method is not comparable with that of another; how far the clips have gone is.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.benchmark_spec import is_control
from analyses.evaluation.dose_curves import DoseCurve, Key

LEAST_REACH = 0.25
"""A way that does not get this part of the real prompts' distance moves the clips too little to be compared."""

REAL_PROMPT = "real prompt"

AtMeasure = Float[np.ndarray, "replicate measure"]


class CommonDistance(NamedTuple):
    """The distance at which ways are compared, and what limits it in the sample, by measure.

    That is the way that reaches the least, or `REAL_PROMPT`; "" if no way is compared.
    """

    values: AtMeasure
    limited_by: list[str]


def common_distances(curves: Mapping[Key, DoseCurve], real: AtMeasure) -> dict[str, CommonDistance]:
    """Return, by sign, the distance at which ways of steering are compared.

    It is the largest one that all compared ways reach: the smallest of their largest mean distances, in every replicate
    of its own; but not more than that of the real prompts' clips. Not compared are controls (`is_control`), ways
    without strengths of a sign, and those that hardly move the clips in the sample (`LEAST_REACH`).

    Args:
        curves: the curves of all ways.
        real: the mean distance of the real prompts' clips.

    Returns:
        Distances by replicate and measure; NaN if no way is compared.
    """
    return {
        sign: _common([(way, curve) for (way, own), curve in curves.items() if own == sign], real)
        for sign in SIGNS
        if any(own == sign for _, own in curves)
    }


def _common(curves: Sequence[tuple[str, DoseCurve]], real: AtMeasure) -> CommonDistance:
    """Return the common distance of the ways of one sign."""
    names = [REAL_PROMPT, *(way for way, _ in curves)]
    farthest = np.stack([real, *(curve.distance.max(axis=1) for _, curve in curves)])
    compared = farthest[:, 0] >= LEAST_REACH * real[0]
    compared &= np.array([not is_control(name) for name in names])[:, None]
    is_any = compared[1:].any(axis=0)
    within = np.where(compared[:, None], farthest, np.inf)
    values = np.where(is_any, within.min(axis=0), np.nan)
    limits = [
        names[place] if known else ""
        for place, known in zip(within[:, 0].argmin(axis=0), is_any, strict=True)
    ]
    return CommonDistance(values, limits)


def place_at(distance: Float[np.ndarray, "replicate dose measure"], wanted: AtMeasure) -> AtMeasure:
    """Return where a curve first reaches a distance, as a fractional index of its doses; NaN where it does not.

    Between two doses the distance is taken to be linear. Distances that fall again and rise later are passed first on
    the way up, which is the weaker strength.
    """
    slack = 1e-12 * np.abs(wanted)  # the farthest dose reaches its own distance
    reached = distance >= (wanted - slack)[:, None]
    after = reached.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(distance, at[:, None], axis=1)[:, 0] for at in (before, after))
    rise = high - low
    part = np.divide(wanted - low, rise, out=np.zeros_like(rise), where=rise > 0)
    known = reached.any(axis=1) & ~np.isnan(distance).any(axis=1) & ~np.isnan(wanted)
    return np.where(known, before + np.clip(part, 0, 1), np.nan)


def value_at(
    values: Float[np.ndarray, "replicate dose scorer"], place: AtMeasure
) -> Float[np.ndarray, "replicate scorer measure"]:
    """Return the values of a curve at fractional indices of its doses, linear between them; NaN where there is none."""
    known = np.nan_to_num(place)
    before = np.floor(known).astype(int)
    after = np.minimum(before + 1, values.shape[1] - 1)
    lower, upper = (_taken(values, at) for at in (before, after))
    part = (known - before)[:, None]
    return np.where(np.isnan(place)[:, None], np.nan, lower + part * (upper - lower))


def strength_at(strength: Sequence[float] | Float[np.ndarray, " dose"], place: AtMeasure) -> AtMeasure:
    """Return the strength at fractional indices of doses; NaN where there is none."""
    found = np.interp(np.nan_to_num(place), np.arange(len(strength)), strength)
    return np.where(np.isnan(place), np.nan, found)


def _taken(
    values: Float[np.ndarray, "replicate dose scorer"], at: np.ndarray
) -> Float[np.ndarray, "replicate scorer measure"]:
    return np.take_along_axis(values, at[:, :, None], axis=1).transpose(0, 2, 1)
