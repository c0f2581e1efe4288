"""The musicnn scorer: probabilities of 50 tags, learnt from real music that people tagged (MagnaTagATune).

Pons and Serra 2019, arXiv:1909.06654. The weights are those of musicnn 0.1.0 (ISC licence, beside them), converted by
`tests/oracles/make_musicnn_fixtures.py`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from cache.errors import UserError
from cache.wording import quoted
from workbench.audio import check_clips, unscorable
from workbench.provenance import file_hash
from workbench.scorers.musicnn_network import FRAMES, MusicnnNetwork
from workbench.tensor_files import load_tensors

WEIGHTS = Path(__file__).parent / "embedded_weights" / "musicnn.safetensors"
SAMPLE_RATE = 16_000
LARGEST_SAMPLE = 10.0
"""Power of larger ones may not fit into 16 bits, to which it is rounded."""

_FFT, _HOP = 512, 256
_ABSENT = "without "
_PRESENT = "with "
# Tags of what music may have; music is not "with slow".
_THINGS = (
    *("guitar", "strings", "drums", "piano", "beat", "beats", "violin", "synth", "harpsichord", "flute"),
    *("sitar", "harp", "cello", "vocal", "vocals", "female vocal", "male vocal", "singing", "voice"),
    *("female voice", "male voice", "choir"),
)

_log = logging.getLogger(__name__)


class MusicnnScorer:
    """Probability of tags such as "violin", "female vocal" or "fast" in audio; `tags` lists them.

    Audio is averaged to mono, resampled to 16 kHz and cut into consecutive windows of 187 frames (3 s); a clip's
    probability is the mean over its windows, and a shorter rest is not heard, as in the original. "with drums" is the
    tag "drums"; "without drums" has 1 less its probability. Every clip passes through the network alone, so that its
    score does not depend on the other clips of the call.
    """

    name = "musicnn"
    min_seconds = (FRAMES - 1) * _HOP / SAMPLE_RATE

    def __init__(self, weights: Path = WEIGHTS, device: str = "cpu") -> None:
        self.identity = self.identify(weights)
        arrays, metadata = load_tensors(weights.parent, weights.name)
        self.tags = tuple(metadata["tags"].splitlines())
        self._mel = torch.from_numpy(arrays.pop("mel"))
        self._network = MusicnnNetwork()
        self._network.load_state_dict(
            {name: torch.from_numpy(value) for name, value in arrays.items()}, strict=False
        )
        self._network.eval().to(device)
        self._device = device

    @classmethod
    def identify(cls, weights: Path = WEIGHTS) -> str:
        """Return the hash of the weights, which determine the scores; raise UserError if they are missing."""
        if not weights.is_file():
            raise UserError(f"The weights of the musicnn scorer are missing: {weights} does not exist.")
        return file_hash(weights)[:16]

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that no tag stands for."""
        for text in texts:
            if _tag(text) not in self.tags:
                raise UserError(
                    f"The musicnn scorer cannot score {quoted(text)}: it is not one of its tags. It scores "
                    f"{', '.join(self.tags)}; for other texts use a CLAP scorer, such as --scorer clap."
                )

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Return the probability of each text for clips of audio in [-1, 1] at `sample_rate` Hz.

        A clip that is silent, shorter than `min_seconds`, not finite or far beyond [-1, 1] gets NaN and an error in the
        log.

        Raises:
            UserError: if no tag stands for a text, or the audio does not have three dimensions.
        """
        check_clips(audio)
        self.check_texts(texts)
        places = [self.tags.index(_tag(text)) for text in texts]
        absent = np.array([text not in self.tags and text.startswith(_ABSENT) for text in texts])
        scores = np.full((len(audio), len(texts)), np.nan)
        for number, clip in enumerate(audio):
            fault = self._fault(clip, sample_rate)
            if fault:
                _log.error("musicnn cannot score clip %d: %s.", number, fault)
                continue
            probability = self.probabilities(clip, sample_rate)[places]
            scores[number] = np.where(absent, 1 - probability, probability)
        return scores

    def probabilities(
        self, clip: Float[np.ndarray, "channel sample"], sample_rate: int
    ) -> Float[np.ndarray, " tag"]:
        """Return the probability of each tag in a clip of at least `min_seconds`."""
        windows = self.spectrogram(clip, sample_rate).unfold(0, FRAMES, FRAMES).transpose(1, 2)
        return self.tag_probabilities(windows).mean(axis=0)

    @torch.inference_mode()
    def tag_probabilities(
        self, windows: Float[Tensor, "window frame mel"]
    ) -> Float[np.ndarray, "window tag"]:
        """Return the probability of each tag in windows of a spectrogram of 187 frames."""
        return self._network(windows.to(self._device)).sigmoid().double().cpu().numpy()

    def spectrogram(
        self, clip: Float[np.ndarray, "channel sample"], sample_rate: int
    ) -> Float[Tensor, "frame mel"]:
        """Return log10(10000 m + 1) of the power m in 96 mel bands up to 8 kHz, rounded as in the original."""
        mono = clip.mean(axis=0, dtype=np.float64)
        if sample_rate != SAMPLE_RATE:
            mono = soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="HQ")
        window = torch.hann_window(_FFT, dtype=torch.float64)
        waves = torch.stft(
            torch.from_numpy(mono), _FFT, _HOP, window=window, pad_mode="constant", return_complex=True
        )
        power = (waves.abs().square().T @ self._mel.T).numpy()
        # NumPy rounds once; torch rounds to float32 before.
        return torch.from_numpy(np.log10(10_000 * power.astype(np.float16).astype(np.float32) + 1))

    def _fault(self, clip: Float[np.ndarray, "channel sample"], sample_rate: int) -> str:
        if fault := unscorable(clip.mean(axis=0, dtype=np.float64)[None]):
            return fault
        if clip.shape[1] < self.min_seconds * sample_rate:
            return f"it is shorter than {self.min_seconds:.3g} s"
        if np.abs(clip).max() > LARGEST_SAMPLE:
            return f"it has samples beyond ±{LARGEST_SAMPLE:g}"
        return ""


def _tag(text: str) -> str:
    """Return the tag that stands for a text: "drums" for "with drums" and "without drums", a tag for itself."""
    thing = text.removeprefix(_ABSENT if text.startswith(_ABSENT) else _PRESENT)
    return thing if thing in _THINGS else text
