"""Clips of planted sparse codes, dense and as they are kept."""

import numpy as np

from analyses.sae.codes import Axes, ClipCodes

AXES = Axes(steps=(0, 4), sigmas=(1.0, 0.5), tokens=5, token_seconds=0.5)


def random_acts(n_clips: int, features: int, density: float = 0.3, seed: int = 0) -> np.ndarray:
    """Feature activations (clip, row, feature), most of them 0; the last feature is dead."""
    rng = np.random.default_rng(seed)
    values = rng.random((n_clips, AXES.rows, features), dtype=np.float32) + 0.1
    acts = np.where(rng.random(values.shape) < density, values, 0).astype(np.float32)
    acts[..., -1] = 0
    return acts


def sparse(acts: np.ndarray) -> ClipCodes:
    """The codes of one clip, from its activations (row, feature)."""
    feature, row = acts.T.nonzero()
    pointer = np.searchsorted(feature, np.arange(acts.shape[1] + 1)).astype(np.int32)
    return ClipCodes(pointer, row.astype(np.int32), acts[row, feature].astype(np.float32))
