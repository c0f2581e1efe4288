"""The embedded scorer: probability of each concept value, by logistic regression on perceptual audio features.

It was fitted on synthesised clips with exact labels (`benchmarks.organisms.embedded.fit_scorer`), never on generated
ones. It supports only the four concepts of the organisms; for other music use a CLAP scorer.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

from cache.errors import UserError
from cache.wording import quoted
from workbench.audio import check_clips
from workbench.provenance import file_hash

_LOG = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
WEIGHTS = Path(__file__).parent / "embedded_weights" / "scorer.npz"

_FFT, _HOP = 1024, 320
_MELS = 64
_LAGS = slice(5, 80)
"""Lags of the onset curve's autocorrelation, in hops of 20 ms: from 0.1 to 1.6 s."""
_SILENCE_RMS = 1e-5
_LEVEL_RMS = 0.15
_ONSET_GAP = 5
_ONSET_THRESHOLDS = (0.2, 0.35, 0.5)


@lru_cache(maxsize=1)
def _mel_filters() -> Float[np.ndarray, "mel bin"]:
    """Triangular filters from 30 Hz to 8 kHz, evenly spaced on the HTK mel scale, each with unit sum."""
    to_mel = lambda hz: 2595 * np.log10(1 + hz / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(to_mel(30.0), to_mel(SAMPLE_RATE / 2), _MELS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.clip(np.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)), 0, None)
    return (filters / (filters.sum(axis=1, keepdims=True) + 1e-9)).astype(np.float32)


@lru_cache(maxsize=1)
def _chroma_filters() -> Float[np.ndarray, "pitch_class bin"]:
    """Gaussian bumps at each pitch class's equal-tempered notes between 120 and 3000 Hz; C is class 0."""
    hz = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    filters = np.zeros((12, len(hz)), np.float32)
    for midi in range(36, 108):
        note = 440 * 2 ** ((midi - 69) / 12)
        if 120 < note < 3000:
            filters[midi % 12] += np.exp(-0.5 * ((hz - note) / max(8.0, 0.02 * note)) ** 2)
    return filters


def _onset_rates(curve: Float[np.ndarray, " hop"], seconds: float) -> list[float]:
    """Return onsets per second: peaks of `curve` above fractions of its range, at least 100 ms apart."""
    height = curve - curve.min()
    peak = (height[1:-1] >= height[:-2]) & (height[1:-1] > height[2:])
    rates = []
    for threshold in _ONSET_THRESHOLDS:
        count, last = 0, -_ONSET_GAP
        for hop in np.flatnonzero(peak & (height[1:-1] > threshold * height.max())):
            if hop - last >= _ONSET_GAP:
                count, last = count + 1, int(hop)
        rates.append(count / seconds)
    return rates


def features(clip: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " feature"]:
    """Features of a mono clip at `SAMPLE_RATE`, independent of its level.

    Mean, deviation and mean change of the log-mel spectrum (timbre), mean and 90th percentile of the chroma
    (mode), autocorrelation, spread and peak rates of the onset curve (tempo, drums).
    """
    clip = clip * (_LEVEL_RMS / (np.sqrt(np.mean(np.square(clip))) + 1e-6))
    windows = np.lib.stride_tricks.sliding_window_view(clip, _FFT)[::_HOP] * np.hanning(_FFT)
    power = np.square(np.abs(np.fft.rfft(windows, axis=1))).astype(np.float32)
    mel = np.log10(power @ _mel_filters().T + 3e-2)
    chroma = np.log10(power @ _chroma_filters().T + 1e-1)
    chroma -= chroma.mean(axis=1, keepdims=True)
    change = np.diff(mel, axis=0)
    onset = np.maximum(change, 0).mean(axis=1)
    onset -= onset.mean()
    autocorrelation = np.correlate(onset, onset, "full")[len(onset) - 1 :]
    return np.concatenate(
        [
            mel.mean(axis=0),
            mel.std(axis=0),
            np.abs(change).mean(axis=0),
            2 * chroma.mean(axis=0),
            np.percentile(chroma, 90, axis=0),
            autocorrelation[_LAGS] / (autocorrelation[0] + 1e-9),
            [10 * onset.std()],
            _onset_rates(onset, len(clip) / SAMPLE_RATE),
        ]
    ).astype(np.float32)


def _prepare(audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> Float[np.ndarray, " resampled"]:
    """The channel mean at `SAMPLE_RATE`."""
    mono = audio.mean(axis=0, dtype=np.float64)
    if sample_rate != SAMPLE_RATE:
        mono = soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="HQ")
    return mono


def _fault(mono: Float[np.ndarray, " sample"]) -> str | None:
    """Return why a clip cannot be scored, or None if it can."""
    if not np.isfinite(mono).all():
        return "it has samples that are not finite numbers"
    if len(mono) < EmbeddedScorer.min_seconds * SAMPLE_RATE:
        return f"it is shorter than {EmbeddedScorer.min_seconds:g} s"
    if np.sqrt(np.mean(np.square(mono))) < _SILENCE_RMS:
        return "it is silent"
    return None


class EmbeddedScorer:
    """Calibrated probability of each value of the concepts instrument, tempo, mood and drums.

    Needs NumPy only. `values` maps each concept to its values; the values are the texts that can be scored.
    """

    name = "embedded"
    min_seconds = 2.0

    def __init__(self, weights: Path = WEIGHTS, device: str = "cpu") -> None:  # noqa: ARG002 - too small for one
        self.identity = self.identify(weights)
        with np.load(weights, allow_pickle=False) as arrays:
            self.values = {
                key.removesuffix(".values"): tuple(str(value) for value in arrays[key])
                for key in arrays.files
                if key.endswith(".values")
            }
            self._heads = {
                concept: (arrays[f"{concept}.weight"], arrays[f"{concept}.bias"]) for concept in self.values
            }

    @classmethod
    def identify(cls, weights: Path = WEIGHTS) -> str:
        """Return the hash of the weights, which determine the scores; raise UserError if they are missing."""
        if not weights.is_file():
            raise UserError(f"The embedded scorer's weights are missing: {weights} does not exist.")
        return file_hash(weights)[:16]

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that is not a concept value."""
        known = [value for values in self.values.values() for value in values]
        for text in texts:
            if text not in known:
                raise UserError(
                    f"The embedded scorer cannot score {quoted(text)}. It scores {', '.join(known)}; "
                    "for other texts use a CLAP scorer, such as --scorer clap."
                )

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Return the probability of each text, among the values of its concept, for each clip at `sample_rate` Hz.

        A clip that is silent, shorter than 2 s or not finite gets NaN and a logged error. Scores do not depend on the
        other clips of the call.

        Raises:
            UserError: if a text is not a concept value, or the audio does not have three dimensions.
        """
        check_clips(audio)
        self.check_texts(texts)
        scores = np.full((len(audio), len(texts)), np.nan)
        for row, clip in enumerate(audio):
            mono = _prepare(clip, sample_rate)
            fault = _fault(mono)
            if fault is not None:
                _LOG.error("clip %d cannot be scored: %s", row, fault)
                continue
            probability = self._probabilities(mono)
            scores[row] = [probability[text] for text in texts]
        return scores

    def _probabilities(self, mono: Float[np.ndarray, " sample"]) -> dict[str, float]:
        """Return the probability of every value of every concept for one clip."""
        found = features(mono)
        probabilities: dict[str, float] = {}
        for concept, (weight, bias) in self._heads.items():
            logits = weight @ found + bias
            odds = np.exp(logits - logits.max())
            probabilities.update(zip(self.values[concept], odds / odds.sum(), strict=True))
        return probabilities

    def most_probable(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int
    ) -> dict[str, list[str | None]]:
        """Return the most probable value of each concept for each clip; None if a clip cannot be scored."""
        chosen: dict[str, list[str | None]] = {}
        for concept, values in self.values.items():
            scores = self.score(audio, sample_rate, values)
            chosen[concept] = [None if np.isnan(row).any() else values[int(row.argmax())] for row in scores]
        return chosen
