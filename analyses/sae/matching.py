"""Which features of two SAEs are the same: by the directions that they add, and by the clips in which they are active.

Either way a feature has a profile: its decoder row, or its mean activation in each clip, less the mean of these. The
similarity of two features is the cosine of their profiles, which for clips is Pearson's correlation. Features are
matched one to one so that the sum of similarities is largest (the Hungarian method; Paulo & Belrose, arXiv 2501.16615),
or, of SAEs too large for that, each with its nearest.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

MOST_ONE_TO_ONE = 4096
"""Features of either SAE that are matched one to one: of more, all similarities need much memory and time."""
BLOCK = 256
"""Features whose similarities to all others are computed at once."""

Profiles = Float[np.ndarray, "feature part"]
Others = Float[np.ndarray, "other part"]


class Matches(NamedTuple):
    """The counterpart of each feature of one SAE in another: its position and similarity; -1 and NaN for none.

    `nearest` is the most similar feature of the other SAE, `back` the most similar feature of this one to each of the
    other's, and `match` that of one-to-one matching, or None if there are too many features.
    """

    nearest: Int[np.ndarray, " feature"]
    back: Int[np.ndarray, " other"]
    match: Int[np.ndarray, " feature"] | None

    @property
    def chosen(self) -> Int[np.ndarray, " feature"]:
        """The match one to one, or the nearest one where there is none."""
        return self.nearest if self.match is None else self.match

    @property
    def is_mutual(self) -> Bool[np.ndarray, " feature"]:
        """Whether a feature and its chosen counterpart are each other's nearest."""
        chosen, known = self.chosen, self.chosen >= 0
        own = np.arange(len(chosen))
        return known & (self.nearest == chosen) & (self.back[np.maximum(chosen, 0)] == own)


def match_features(
    own: Profiles, other: Others, progress: Callable[[float], None] = lambda _: None
) -> Matches:
    """Match features by the cosines of their profiles; a profile of zeros has no counterpart and is none.

    `progress` is called with the fraction of the work that is done.
    """
    one, two = units(own), units(other)
    nearest, back = np.full(len(one), -1), np.full(len(two), -1)
    rows, columns = (np.flatnonzero(each.any(axis=1)) for each in (one, two))
    if not (rows.size and columns.size):
        return Matches(nearest, back, nearest.copy())
    one, two = one[rows], two[columns]
    nearest[rows], back[columns] = (
        places[at] for places, at in zip((columns, rows), _nearest(one, two, progress), strict=True)
    )
    if max(len(one), len(two)) > MOST_ONE_TO_ONE:
        return Matches(nearest, back, None)
    match = np.full(len(nearest), -1)
    kept, place, _ = one_to_one(one, two)
    match[rows[kept]] = columns[place]
    return Matches(nearest, back, match)


def one_to_one(
    one: Profiles, two: Others
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Return the matched rows of both, of length 1 or 0, by number, and their cosines, whose sum is the largest."""
    cosines = one @ two.T
    own, match = linear_sum_assignment(cosines, maximize=True)
    return own, match, cosines[own, match]


def similarities(
    own: Profiles, other: Others, places: Int[np.ndarray, " feature"]
) -> Float[np.ndarray, " feature"]:
    """Return the cosine of each feature's profile and that of the other SAE's feature at its place; NaN for place -1.

    NaN also where either profile is zero.
    """
    found = np.full(len(own), np.nan)
    for first in range(0, len(own), BLOCK):
        some = slice(first, first + BLOCK)
        one, two = units(own[some]), units(other[np.maximum(places[some], 0)])
        known = (places[some] >= 0) & one.any(axis=1) & two.any(axis=1)
        found[some] = np.where(known, np.einsum("fp,fp->f", one, two), np.nan)
    return found


def centred(means: Float[np.ndarray, "clip feature"]) -> Profiles:
    """Return the profiles of features over clips: their mean activations, less their mean over clips.

    Zeros for a feature that is as active in every clip, of which rounding would leave something.
    """
    profiles = (means - means.mean(axis=0)).T
    return np.where(np.ptp(means, axis=0)[:, None] > 0, profiles, 0)


def units(rows: Profiles) -> Profiles:
    """Return rows of length 1; rows of zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _nearest(
    one: Profiles, two: Others, progress: Callable[[float], None]
) -> tuple[Int[np.ndarray, " feature"], Int[np.ndarray, " other"]]:
    """Return the place of the nearest profile of the other kind for each of both kinds, a block at a time."""
    nearest, back = np.empty(len(one), dtype=int), np.zeros(len(two), dtype=int)
    best = np.full(len(two), -np.inf, dtype=one.dtype)
    # One array for all blocks: memory that is new in each would take longer than the products.
    room = np.empty((min(BLOCK, len(one)), len(two)), dtype=one.dtype)
    for first in range(0, len(one), BLOCK):
        some = one[first : first + BLOCK]
        cosines = np.matmul(some, two.T, out=room[: len(some)])
        nearest[first : first + BLOCK] = cosines.argmax(axis=1)
        highest = cosines.max(axis=0)
        better = np.flatnonzero(highest > best)  # soon only few
        back[better] = first + cosines[:, better].argmax(axis=0)
        best[better] = highest[better]
        progress(min(first + BLOCK, len(one)) / len(one))
    return nearest, back
