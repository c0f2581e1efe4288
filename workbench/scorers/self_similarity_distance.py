"""The self-similarity distance: how different two clips' repetitions in time are."""

import numpy as np
from jaxtyping import Float

from workbench.scorers.clip_distance import ClipDistance, NoDistanceError, Samples
from workbench.scorers.mir_features import unit_chroma

Chroma = Float[np.ndarray, "pitch_class frame"]

SMALLEST_DEVIATION = 1e-3
"""Standard deviation of a matrix below which it has nothing to correlate: similarities lie between 0 and 1."""


class SelfSimilarityDistance(ClipDistance):
    """1 less the Pearson correlation of both clips' self-similarity matrices, at most 1; symmetric.

    The matrix has the cosine of the chroma of every two frames, as published with the paper (arXiv:2602.11910); a
    transposed clip has the same. A clip whose chroma stay the same has no distance.
    """

    name = "self-similarity"
    min_seconds = 2.0
    libraries = ("librosa",)

    def features(self, mono: Samples, sample_rate: int) -> Chroma:
        """Return the chroma."""
        return unit_chroma(mono, sample_rate)

    def between(self, ours: Chroma, reference: Chroma) -> float:
        """Return the distance of the matrices' parts above the diagonal."""
        for chroma, whose in ((ours, "its"), (reference, "its reference's")):
            if covariance(chroma, chroma) < SMALLEST_DEVIATION**2:
                raise NoDistanceError(f"{whose} chroma hardly change")
        size = np.sqrt(covariance(ours, ours)) * np.sqrt(covariance(reference, reference))
        return float(1 - np.clip(covariance(ours, reference) / size, 0, 1))


def covariance(one: Chroma, other: Chroma) -> float:
    """Return the covariance of two self-similarity matrices above their diagonals.

    It needs no matrix of frames by frames: summed over frames i and j, (a_i · a_j)(b_i · b_j) is the sum of squares of
    A Bᵀ, and a_i · a_j is the squared length of the sum of all a_i.
    """
    frames = one.shape[1]
    count = frames * (frames - 1) / 2
    own = np.square(one).sum(axis=0), np.square(other).sum(axis=0)  # the diagonals
    products = (np.square(one @ other.T).sum() - (own[0] * own[1]).sum()) / 2
    sums = [
        (np.square(chroma.sum(axis=1)).sum() - diagonal.sum()) / 2
        for chroma, diagonal in zip((one, other), own, strict=True)
    ]
    return float(products / count - sums[0] / count * (sums[1] / count))
