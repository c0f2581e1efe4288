"""The harmony distance: how different the pitch classes are that sound at the same time."""

import numpy as np
from jaxtyping import Float

from workbench.scorers.clip_distance import ClipDistance, NoDistanceError, Samples
from workbench.scorers.mir_features import unit_chroma

Chroma = Float[np.ndarray, "pitch_class frame"]


class HarmonyDistance(ClipDistance):
    """1 less the mean cosine of the chroma of both clips, frame by frame; symmetric, from 0 to 1.

    As published with the paper (arXiv:2602.11910), but frames in which both clips are silent are left out, so that a
    clip with a rest is 0 from itself.
    """

    name = "harmony"
    min_seconds = 2.0
    libraries = ("librosa",)

    def features(self, mono: Samples, sample_rate: int) -> Chroma:
        """Return the chroma."""
        return unit_chroma(mono, sample_rate)

    def between(self, ours: Chroma, reference: Chroma) -> float:
        """Return the mean over frames."""
        sounding = ours.any(axis=0) | reference.any(axis=0)
        if not sounding.any():
            raise NoDistanceError("it has no pitch classes")
        cosines = (ours * reference).sum(axis=0)[sounding]
        return float(np.clip(1 - cosines.mean(), 0, 1))
