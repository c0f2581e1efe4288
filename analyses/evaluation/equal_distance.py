"""Ways of steering at equal distance from the unsteered clips: at which strength, and what they have moved there.

A strength of one method is not comparable with that of another; how far the clips have gone is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.dose_curves import DoseCurve, Key

LEAST_REACH = 0.25
"""A way that does not get this part of the real prompts' distance moves the clips too little to be compared."""

AtMeasure = Float[np.ndarray, "replicate measure"]


def common_distances(
    curves: Mapping[Key, DoseCurve],
    real: Float[np.ndarray, " measure"],
) -> dict[str, AtMeasure]:
    """Return, by sign, the distance at which ways of steering are compared.

    It is the largest one that all compared ways reach: the smallest of their largest mean distances, in every replicate
    of its own; but not more than that of the real prompts' clips. Not compared are ways without strengths of a sign,
    and those that hardly move the clips (`LEAST_REACH`).

    Args:
        curves: the curves of all ways.
        real: the mean distance of the real prompts' clips.

    Returns:
        Distances by replicate and measure; NaN if no way is compared.
    """
    found = {}
    for sign in SIGNS:
        reached = [curve.distance.max(axis=1) for (_, own), curve in curves.items() if own == sign]
        if not reached:
            continue
        farthest = np.stack(reached)
        compared = farthest[:, 0] >= LEAST_REACH * real
        common = np.where(compared[:, None], farthest, np.inf).min(axis=0)
        found[sign] = np.where(np.isfinite(common), np.minimum(common, real), np.nan)
    return found


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
