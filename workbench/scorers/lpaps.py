"""LPAPS, the distance of two clips inside CLAP's audio network (Manor and Michaeli 2024, arXiv:2402.10009)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.provenance import content_hash, file_hash
from workbench.scorers.clap import complete, find_checkpoint, load_state_dict
from workbench.scorers.clap_transformers import LogMel, convert
from workbench.scorers.clip_distance import ClipDistance, Samples
from workbench.scorers.windows import WINDOW_SAMPLES, cut_windows, mono_48k

STEP = WINDOW_SAMPLES * 9 // 10
"""Samples between two windows of 10 s, a tenth of which overlaps."""
_TINY = 1e-10

Stage = Float[Tensor, "window position channel"]


class LpapsDistance(ClipDistance):
    """Squared difference of the outputs of HTSAT's four stages, summed over them, averaged over windows; symmetric.

    As published, with the checkpoint of the CLAP scorer: in each stage every channel, over all positions in time and
    frequency, is scaled to unit length, and the squared differences are summed over positions and averaged over
    channels. (The authors' code takes the positions for the channels, of which the paper speaks.) No unit; a stage
    adds at most 4.

    Windows of 10 s begin every 9 s. As published, the last ones may hold little of the clip, repeated to fill them,
    and count as much as the others. Clips are resampled before they are cut, not after.
    """

    name = "lpaps"
    min_seconds = 0.0  # short clips are repeated

    def __init__(self, checkpoint: str | Path | None = None, *, device: str = "cpu") -> None:
        """Load the audio network of a checkpoint; see `workbench.scorers.clap.find_checkpoint`."""
        path = find_checkpoint(checkpoint)
        super().__init__(checkpoint=path)
        self._device = torch.device(device)
        state = load_state_dict(path, self._device)
        with complete(path):
            self._log_mel, self._encoder = LogMel(state), convert(state).eval().audio_model.audio_encoder

    @classmethod
    def identify(cls, checkpoint: str | Path | None = None) -> str:
        """Return the hash of the distance's formula and the checkpoint's bytes."""
        return content_hash([cls.name, cls.formula, file_hash(find_checkpoint(checkpoint))])

    @torch.inference_mode()
    def features(self, mono: Samples, sample_rate: int) -> list[Stage]:
        """Return the outputs of the four stages, each channel of unit length."""
        samples = mono_48k(mono[None], sample_rate)
        windows = np.concatenate(
            [
                cut_windows(samples[start : start + WINDOW_SAMPLES])[0]
                for start in range(0, len(samples), STEP)
            ]
        )
        mel = self._log_mel(torch.from_numpy(windows).to(self._device))
        found: Any = self._encoder(mel, output_hidden_states=True)
        stages = [stage.flatten(2).mT.double() for stage in found.hidden_states[1:]]
        return [stage / (stage.norm(dim=1, keepdim=True) + _TINY) for stage in stages]

    def between(self, ours: list[Stage], reference: list[Stage]) -> float:
        """Return the mean over windows."""
        squares = [(one - other).square() for one, other in zip(ours, reference, strict=True)]
        return float(torch.stack([square.sum(dim=1).mean() for square in squares]).sum())
