"""The nearest features of each feature: by the direction that they add, and by when they are active."""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array, vstack

from analyses.sae.codes import Axes, ClipCodes

NEIGHBOURS = 5
SAMPLED_ROWS = 65_536
"""Co-activation is counted on at most this many random rows."""
COUNTED_PAIRS = 2e8
"""And on at most so many rows that this many pairs of active features are counted."""
FEATURES_AT_ONCE = 1024

Neighbours = tuple[Int[np.ndarray, "feature neighbour"], Float[np.ndarray, "feature neighbour"]]


def decoder_neighbours(
    w_dec: Float[np.ndarray, "feature channel"], alive: Bool[np.ndarray, " feature"]
) -> Neighbours:
    """Return the living features with the largest cosine between decoder rows, nearest first, and the cosines.

    -1 and NaN where there are no more, and for dead features.
    """
    living = np.flatnonzero(alive)
    norms = np.linalg.norm(w_dec[living], axis=1, keepdims=True)
    rows = np.divide(w_dec[living], norms, out=np.zeros_like(w_dec[living]), where=norms > 0)
    return _nearest(lambda some: rows[some] @ rows.T, living, len(alive))


def coactive_neighbours(sample: csr_array) -> Neighbours:
    """Return the features that are active on the same rows, nearest first, and their similarity.

    The similarity of two features is Jaccard's: the rows on which both are active over those on which either is. Only
    features with a similarity above 0 are neighbours; -1 and NaN where there are no more.

    Args:
        sample: which features are active on some rows, 0 or 1, (row, feature); see `sampled_rows`.
    """
    count = np.asarray(sample.sum(axis=0)).ravel()
    by_row = sample.T.tocsr()

    def similarity(some: slice) -> Float[np.ndarray, "some feature"]:
        both = (by_row[some] @ sample).toarray()
        either = count[some, None] + count[None] - both
        return np.divide(both, either, out=np.zeros_like(both), where=either > 0)

    index, value = _nearest(similarity, np.arange(len(count)), len(count))
    return np.where(value > 0, index, -1), np.where(value > 0, value, np.nan)


def _nearest(
    similarity: Callable[[slice], Float[np.ndarray, "some living"]],
    living: Int[np.ndarray, " living"],
    n_features: int,
) -> Neighbours:
    """Return the most similar ones of the living features for each of them, some features at a time.

    `similarity` gives that of some of the living features with all of them.
    """
    index = np.full((n_features, NEIGHBOURS), -1)
    value = np.full((n_features, NEIGHBOURS), np.nan, dtype=np.float32)
    count = min(NEIGHBOURS, len(living) - 1)
    if count < 1:
        return index, value
    for first in range(0, len(living), FEATURES_AT_ONCE):
        some = slice(first, first + FEATURES_AT_ONCE)
        of_some = similarity(some)
        np.fill_diagonal(of_some[:, first:], -np.inf)  # itself
        nearest = np.argpartition(-of_some, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(of_some, nearest, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        index[living[some], :count] = living[np.take_along_axis(nearest, order, axis=1)]
        value[living[some], :count] = np.take_along_axis(found, order, axis=1)
    return index, value


def sampled_rows(codes: Iterable[ClipCodes], n_clips: int, axes: Axes, seed: int = 0) -> csr_array:
    """Return which features are active on random rows, as many of each clip: 0 or 1, (row, feature), float32.

    At most `SAMPLED_ROWS`, and fewer if they have so many active features that more than `COUNTED_PAIRS` pairs would
    be counted.
    """
    rng = np.random.default_rng(seed)
    of_clip = min(axes.rows, max(1, SAMPLED_ROWS // n_clips))
    parts = []
    for clip in codes:
        chosen = np.sort(rng.permutation(axes.rows)[:of_clip])
        place = np.searchsorted(chosen, clip.row)
        is_chosen = chosen[np.minimum(place, of_clip - 1)] == clip.row
        cells = (place[is_chosen], clip.feature[is_chosen])
        ones = np.ones(len(cells[0]), dtype=np.float32)
        parts.append(csr_array((ones, cells), shape=(of_clip, len(clip.counts))))
    sample = vstack(parts, format="csr")
    pairs = np.cumsum(np.diff(sample.indptr).astype(float) ** 2)
    if pairs[-1] <= COUNTED_PAIRS:
        return sample
    order = rng.permutation(sample.shape[0])
    kept = np.searchsorted(np.cumsum(np.diff(sample.indptr)[order].astype(float) ** 2), COUNTED_PAIRS)
    return sample[np.sort(order[: max(1, int(kept))])]
