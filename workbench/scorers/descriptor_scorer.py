"""The scorer of descriptors: measures of audio, such as onset rate or brightness, in place of a trained judge."""

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from cache.wording import quoted
from workbench.audio import check_clips, unscorable
from workbench.provenance import content_hash, file_hash
from workbench.scorers import descriptors
from workbench.scorers.descriptors import DESCRIPTORS

MEASURE = "descriptors"
"""The scorer's name."""
SIGNS = {"high ": 1.0, "low ": -1.0}
WORDS = {
    "fast": "high onset_rate",
    "slow": "low onset_rate",
    "loud": "high loudness",
    "quiet": "low loudness",
    "bright": "high brightness",
    "dark": "low brightness",
    "happy": "high mode",
    "sad": "low mode",
    "major": "high mode",
    "minor": "low mode",
    "with drums": "high percussive_share",
    "without drums": "low percussive_share",
}
"""Words that stand for a descriptor. Speed is onsets per second: an estimated tempo is often half or double."""

_LIBRARIES = ("librosa", "pyloudnorm")

_log = logging.getLogger(__name__)


def high(descriptor: str) -> str:
    """Return the text whose score is a descriptor's value."""
    return f"high {descriptor}"


class DescriptorScorer:
    """Value of a descriptor of the audio (`workbench.scorers.descriptors`), in its unit.

    A text is "high onset_rate", whose score is the value, or "low onset_rate", whose score is minus the value, with the
    name of any descriptor; or one of `WORDS`, which stands for such a text. Channels are averaged.
    """

    name = MEASURE
    min_seconds = 0.4

    def __init__(self, device: str = "cpu") -> None:  # noqa: ARG002 - no network
        self.identity = self.identify()

    @classmethod
    def identify(cls) -> str:
        """Return a hash of what determines the values: the code of the measures, and the libraries they use."""
        code = [file_hash(Path(file)) for file in (descriptors.__file__, __file__)]
        return content_hash([code, [version(library) for library in _LIBRARIES]])

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that no descriptor stands for."""
        for text in texts:
            if _meaning(text)[0] not in DESCRIPTORS:
                raise UserError(
                    f"The scorer descriptors cannot score {quoted(text)}. It scores {', '.join(WORDS)}, and high or "
                    f"low before {', '.join(DESCRIPTORS)}; for other texts use a CLAP scorer, such as --scorer clap."
                )

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Return the signed value of each text's descriptor, in its unit, for clips of audio at `sample_rate` Hz.

        A clip that is silent, shorter than `min_seconds` or not finite gets NaN and an error in the log, and so does
        one that has no value of a descriptor, such as a pitch.

        Raises:
            UserError: if no descriptor stands for a text, or the audio does not have three dimensions.
        """
        check_clips(audio)
        self.check_texts(texts)
        meanings = [_meaning(text) for text in texts]
        scores = np.full((len(audio), len(texts)), np.nan)
        for number, clip in enumerate(audio):
            fault = unscorable(clip)
            if not fault and clip.shape[1] < self.min_seconds * sample_rate:
                fault = f"it is shorter than {self.min_seconds:g} s"
            values = {} if fault else _values(clip, sample_rate, [descriptor for descriptor, _ in meanings])
            missing = ", ".join(name for name, value in values.items() if np.isnan(value))
            if fault or missing:
                _log.error("descriptors cannot score clip %d: %s.", number, fault or f"it has no {missing}")
            scores[number] = [sign * values.get(descriptor, np.nan) for descriptor, sign in meanings]
        return scores


def _values(
    clip: Float[np.ndarray, "channel sample"], sample_rate: int, names: Sequence[str]
) -> dict[str, float]:
    mono = clip.mean(axis=0, dtype=np.float64)
    return {name: float(DESCRIPTORS[name].measure(mono, sample_rate)) for name in dict.fromkeys(names)}


def _meaning(text: str) -> tuple[str, float]:
    """Return the descriptor that a text stands for, and 1 or -1; ("", 0) if it stands for none."""
    spelled = WORDS.get(text, text)
    for prefix, sign in SIGNS.items():
        if spelled.startswith(prefix):
            return spelled.removeprefix(prefix), sign
    return "", 0.0
