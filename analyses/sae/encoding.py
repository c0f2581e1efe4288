"""Encode a study's clips with a sparse autoencoder."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from analyses.sae.codes import ClipCodes
from workbench.sae.base import SAE

ROWS_AT_ONCE = 1024


def encode_clip(sae: SAE, acts: Float[np.ndarray, "step token channel"], steps: Sequence[int]) -> ClipCodes:
    """Encode a clip with the SAE of each denoising step; never more than `ROWS_AT_ONCE` dense rows are in memory."""
    rows, features, values = [], [], []
    tokens = acts.shape[1]
    for position, step in enumerate(steps):
        of_step = sae.at(step)
        for first in range(0, tokens, ROWS_AT_ONCE):
            x = torch.from_numpy(acts[position, first : first + ROWS_AT_ONCE]).to(sae.device)
            with torch.no_grad():
                z = of_step.encode(x)
                row, feature = (z > 0).nonzero(as_tuple=True)
                values.append(z[row, feature].float().numpy(force=True))
            rows.append((row + position * tokens + first).int().numpy(force=True))
            features.append(feature.int().numpy(force=True))
    of_clip = np.concatenate(features)
    order = np.argsort(of_clip, kind="stable")
    counts = np.bincount(of_clip, minlength=sae.config.d_sae)
    return ClipCodes(
        np.append(0, np.cumsum(counts)).astype(np.int32),
        np.concatenate(rows)[order],
        np.concatenate(values)[order],
    )
