"""Alignment against preservation as TADA measures it (arXiv 2602.11910, its code's `eval/auc.py`).

Clips steered by a method at several strengths have a distance from the unsteered clips and a change of a judge's score.
Each sign of the strength is taken alone, and a change in its direction is positive. Only distances up to a cutoff
count: the smaller of the two largest distances that PCI reaches with all blocks and with the localised ones.

The area has the unit of score times distance, and is not divided by the cutoff: it rewards a method that reaches it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.integrate import trapezoid

Points = Float[np.ndarray, " point"]

SIGNS = {"positive": 1, "negative": -1}
REFERENCES = ("pci_all", "pci_loc")
"""The cells whose reach sets the cutoff."""
QUALITY_POINTS = 15
NO_PEAK = 1e-9
"""A change of at most this much has no shape."""


class Curve(NamedTuple):
    """Points of one sign from strength 0 on: distance from the unsteered clips, and change of the score."""

    distance: Points
    change: Points

    def up_to(self, cutoff: float) -> "Curve":
        """Return the points within a cutoff, in order of strength."""
        within = self.distance <= cutoff
        return Curve(self.distance[within], self.change[within])


def curve_of(strength: Points, distance: Points, score: Points, sign: int) -> Curve:
    """Return the curve of one sign, 1 or -1, from points that include strength 0.

    Raises:
        ValueError: if there is no point at strength 0.
    """
    if not (strength == 0).any():
        raise ValueError("a curve needs the point at strength 0")
    order = np.argsort(sign * strength, kind="stable")
    order = order[sign * strength[order] >= 0]
    return Curve(distance[order], sign * (score[order] - score[strength == 0][0]))


def cutoff_of(references: Iterable[Curve]) -> float:
    """Return the smallest of the largest distances that the reference methods reach."""
    return min(float(curve.distance.max()) for curve in references)


def area(curve: Curve, cutoff: float) -> float:
    """Return the integral of the change over the distance, along the points in order of strength, up to a cutoff.

    Where the distance falls again, the area on the way back is subtracted. If some points lie beyond the cutoff, the
    path ends at the cutoff itself, on the line from the farthest point within it to the nearest one beyond; otherwise
    it ends where the method does.
    """
    return float(areas(curve.distance[None], curve.change[None], np.array([cutoff]))[0])


def areas(
    distance: Float[np.ndarray, "*#curves point"],
    change: Float[np.ndarray, "*#curves point"],
    cutoff: Float[np.ndarray, "*#curves"],
) -> Float[np.ndarray, "*curves"]:
    """Return the `area` of many curves at once; NaN where a distance is."""
    distance, change = np.broadcast_arrays(distance, change)
    within = distance <= cutoff[..., None]
    # A point beyond the cutoff is put on the one before it within: a step of no length adds nothing.
    kept = np.maximum.accumulate(np.where(within, np.arange(distance.shape[-1]), 0), axis=-1)
    last = np.where(within, distance, -np.inf).argmax(axis=-1)
    nearest = np.where(within, np.inf, distance).argmin(axis=-1)
    path = [np.take_along_axis(values, kept, axis=-1) for values in (distance, change)]
    (from_d, from_c), (to_d, to_c) = ((_at(distance, point), _at(change, point)) for point in (last, nearest))
    rise = to_d - from_d
    part = np.divide(cutoff - from_d, rise, out=np.zeros(rise.shape), where=rise > 0)
    ends = within.any(axis=-1) & ~within.all(axis=-1)
    end_d = np.where(ends, cutoff, path[0][..., -1])
    end_c = np.where(ends, from_c + part * (to_c - from_c), path[1][..., -1])
    found = trapezoid(np.append(path[1], end_c[..., None], -1), np.append(path[0], end_d[..., None], -1))
    return np.where(np.isnan(distance).any(axis=-1), np.nan, found)


def smoothness(curve: Curve, cutoff: float) -> float:
    """Return how unevenly the change grows up to the cutoff: lower is smoother; NaN if nothing changes that way.

    The population standard deviation of the differences between neighbouring strengths, relative to the largest change.
    A single difference has none.
    """
    change = curve.up_to(cutoff).change
    peak = float(np.clip(change, 0, None).max(initial=0))
    return float(np.diff(change / peak).std()) if peak > NO_PEAK and len(change) > 2 else np.nan


def quality(distance: Points, scores: Float[np.ndarray, "point score"], cutoff: float) -> float:
    """Return the mean of quality scores at 15 equal distances from 0 to the cutoff, within the method's own reach.

    Args:
        distance: distances of the points of one sign.
        scores: scores of the same points, such as the four of Audiobox Aesthetics.
        cutoff: the largest distance that counts.
    """
    order = np.argsort(distance, kind="stable")
    wanted = np.linspace(0, cutoff, QUALITY_POINTS)
    wanted = wanted[(wanted >= distance.min()) & (wanted <= distance.max())]
    return float(np.mean([np.interp(wanted, distance[order], column[order]) for column in scores.T]))


def _at(values: Float[np.ndarray, "*curves point"], point: np.ndarray) -> Float[np.ndarray, "*curves"]:
    return np.take_along_axis(values, point[..., None], axis=-1)[..., 0]


def alignment(metrics: pd.DataFrame, judges: Iterable[str]) -> pd.DataFrame:
    """Return areas and smoothness of every cell and concept by every judge.

    Args:
        metrics: rows as `workbench.artefacts.steering_metrics.load_steering_metrics` returns them, of one axis.
        judges: the columns with scores.

    Returns:
        One row for each cell, concept and judge: `area` and `smoothness`, means over the signs, and of each sign
        `cutoff_`, `area_` and `smoothness_` with its name. Concepts without both `REFERENCES` have NaN.
    """
    rows = [
        {"cell": cell, "concept": concept, "judge": judge, **_of_curves(of_cell, of_concept, judge)}
        for concept, of_concept in metrics.groupby("concept", sort=False)
        for cell, of_cell in of_concept.groupby("cell", sort=False)
        for judge in judges
    ]
    return pd.DataFrame(rows)


def _of_curves(of_cell: pd.DataFrame, of_concept: pd.DataFrame, judge: str) -> dict[str, float]:
    found: dict[str, float] = {}
    references = [of_concept[of_concept["cell"] == name] for name in REFERENCES]
    for name, sign in SIGNS.items():
        cutoff = (
            cutoff_of(_curve(rows, judge, sign) for rows in references)
            if all(map(len, references))
            else np.nan
        )
        curve = _curve(of_cell, judge, sign)
        found[f"cutoff_{name}"] = cutoff
        found[f"area_{name}"] = area(curve, cutoff) if np.isfinite(cutoff) else np.nan
        found[f"smoothness_{name}"] = smoothness(curve, cutoff)
    for measure in ("area", "smoothness"):
        found[measure] = float(np.mean([found[f"{measure}_{name}"] for name in SIGNS]))
    return found


def _curve(rows: pd.DataFrame, judge: str, sign: int) -> Curve:
    strength, distance, score = (rows[name].to_numpy(dtype=float) for name in ("strength", "distance", judge))
    return curve_of(strength, distance, score, sign)
