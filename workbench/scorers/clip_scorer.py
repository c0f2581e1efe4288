"""The base class of scorers that hear each clip alone: which clips are scored, and what a clip without score gets."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import soxr
from jaxtyping import Float

from workbench.audio import check_clips, unscorable

Samples = Float[np.ndarray, " sample"]

_log = logging.getLogger(__name__)


class ClipScorer(ABC):
    """Scores of the channel mean of a clip at the network's own sample rate, `rate`."""

    name: str
    identity: str
    min_seconds: float
    rate: int

    @abstractmethod
    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that cannot be scored."""

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Return the scores of clips of audio in [-1, 1] at `sample_rate` Hz for texts.

        A clip that is silent, shorter than `min_seconds` or not finite gets NaN and an error in the log, as does one
        for which the network gives no number. Scores do not depend on the other clips of the call.

        Raises:
            UserError: if a text cannot be scored, or the audio does not have three dimensions.
        """
        check_clips(audio)
        self.check_texts(texts)
        scores = np.full((len(audio), len(texts)), np.nan)
        for number, clip in enumerate(audio):
            mono = clip.mean(axis=0, dtype=np.float64)
            fault = unscorable(mono[None])
            if not fault and len(mono) < self.min_seconds * sample_rate:
                fault = f"it is shorter than {self.min_seconds:g} s"
            if not fault:
                samples = soxr.resample(mono, sample_rate, self.rate, quality="HQ").astype(np.float32)
                scores[number] = self.score_mono(samples, texts)
                if np.isfinite(scores[number]).all():
                    continue
                fault, scores[number] = "its score is not finite", np.nan
            _log.error("%s cannot score clip %d: %s.", self.name, number, fault)
        return scores

    @abstractmethod
    def score_mono(self, samples: Samples, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Return the scores of a mono clip at `rate`."""
