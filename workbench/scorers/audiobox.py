"""Audiobox Aesthetics: four ratings of a recording, learnt from listeners (Tjandra et al. 2025, arXiv:2502.05139)."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import pad

from cache.errors import UserError
from cache.wording import quoted
from workbench.provenance import content_hash, file_hash
from workbench.scorers.clip_scorer import ClipScorer, Samples
from workbench.scorers.hub_models import find_model, optional_package, without_network

MODEL = "facebook/audiobox-aesthetics"
AXES = {
    "content enjoyment": "CE",
    "content usefulness": "CU",
    "production complexity": "PC",
    "production quality": "PQ",
}
"""The texts that can be scored, with the names of their ratings."""

_WINDOW = 10 * 16_000


class AudioboxScorer(ClipScorer):
    """Ratings from about 1 to 10 of a recording, whatever it contains; the texts are the names of the four `AXES`.

    As in the package audiobox-aesthetics: windows of 10 s at 16 kHz, averaged by their seconds of the clip.
    """

    name = "audiobox"
    min_seconds = 1.0
    rate = 16_000

    def __init__(self, model: str | Path = MODEL, *, device: str = "cpu") -> None:
        """Load the model, a folder or a hub id in the cache."""
        network = self._package()
        found = find_model(self.name, model)
        self.identity = self.identify(model)
        with without_network():
            self._network = network.from_pretrained(str(found.folder)).eval().to(device)
        self._device = device

    @classmethod
    def identify(cls, model: str | Path = MODEL) -> str:
        """Return the hash of what determines the ratings: weights, settings and the package's version."""
        cls._package()
        found = find_model(cls.name, model)
        hashes = file_hash(found.weights), file_hash(found.config)
        return content_hash([*hashes, version("audiobox-aesthetics")])

    @classmethod
    def _package(cls) -> Any:
        # Not the package's own predictor, which needs torchaudio and chooses the device itself.
        with optional_package("audiobox-aesthetics", cls.name, "aesthetics"):
            from audiobox_aesthetics.model.aes import AesMultiOutput
        return AesMultiOutput

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that is not the name of a rating."""
        for text in texts:
            if text not in AXES:
                raise UserError(
                    f"The scorer {self.name!r} cannot score {quoted(text)}: it rates {', '.join(AXES)}, and hears no"
                    " concepts."
                )

    @torch.inference_mode()
    def score_mono(self, samples: Samples, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Return the rating of each axis."""
        pieces = torch.from_numpy(samples).to(self._device).split(_WINDOW)
        seconds = np.array([len(piece) for piece in pieces]) / self.rate
        waves = torch.stack([pad(piece, (0, _WINDOW - len(piece))) for piece in pieces])[:, None]
        mask = torch.stack([torch.arange(_WINDOW, device=self._device) < len(piece) for piece in pieces])
        found = self._network({"wav": waves, "mask": mask[:, None]})
        return np.array([self._rating(AXES[text], found, seconds) for text in texts])

    def _rating(
        self, axis: str, found: dict[str, torch.Tensor], seconds: Float[np.ndarray, " window"]
    ) -> float:
        scale = self._network.target_transform[axis]  # the network's outputs are standardised
        windows = found[axis].double().cpu().numpy() * scale["std"] + scale["mean"]
        return float(np.average(windows, weights=seconds))
