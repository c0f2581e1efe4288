"""Numbers that describe a recording: loudness, brightness, onset rate."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.validation import must_be

Measure = Callable[[Float[np.ndarray, " sample"], int], float]
"""Returns the descriptor of a mono recording with this sample rate in Hz; NaN if it has none."""

ONSET_FRAME = 0.01
"""Seconds between frames in which onsets are looked for."""


def loudness(samples: Float[np.ndarray, " sample"], sample_rate: int) -> float:  # noqa: ARG001 - the same at all
    """Return the root mean square in dB relative to full scale; NaN for silence."""
    power = float(np.mean(np.square(samples, dtype=float)))
    return 10 * np.log10(power) if power > 0 else np.nan


def brightness(samples: Float[np.ndarray, " sample"], sample_rate: int) -> float:
    """Return the spectral centroid in Hz, over frames weighted by their magnitude; NaN for silence."""
    import librosa

    magnitudes = np.abs(librosa.stft(np.asarray(samples, dtype=np.float32))).astype(float)
    if not magnitudes.any():
        return np.nan
    centroids = librosa.feature.spectral_centroid(S=magnitudes, sr=sample_rate)[0]
    return float(np.average(centroids, weights=magnitudes.sum(axis=0)))


def onset_rate(samples: Float[np.ndarray, " sample"], sample_rate: int) -> float:
    """Return the number of onsets per second that librosa detects."""
    import librosa

    # In seconds: with librosa's default of 512 samples, at low sample rates one onset counts in two frames.
    hop = max(1, round(ONSET_FRAME * sample_rate))
    onsets = librosa.onset.onset_detect(
        y=np.asarray(samples, dtype=np.float32), sr=sample_rate, hop_length=hop
    )
    return len(onsets) * sample_rate / len(samples)


DESCRIPTORS: dict[str, Measure] = {
    "loudness": loudness,
    "brightness": brightness,
    "onset_rate": onset_rate,
}
UNITS = {"loudness": "dB", "brightness": "Hz", "onset_rate": "onsets per second"}
"""Their units; a function's is unknown."""


def four_digits(value: float) -> str:
    """Format a descriptor's value with 4 significant digits, large ones without an exponent; "undefined" for NaN."""
    return "undefined" if np.isnan(value) else f"{float(f'{value:.4g}'):g}".replace("-", "−")


def in_unit(descriptor: str, value: float) -> str:
    """Format a descriptor's value with 4 significant digits and its unit, if it is known."""
    return f"{four_digits(value)} {UNITS.get(descriptor, '')}".strip()


def asked_descriptor(descriptor: Any) -> tuple[str, Measure]:
    """Return the name and the function of a descriptor, given by name or as a function; raise UserError for others."""
    if callable(descriptor):
        return getattr(descriptor, "__name__", type(descriptor).__name__), descriptor
    names = ", ".join(DESCRIPTORS)
    must_be(str, descriptor, f"A descriptor must be one of {names}, or a function of samples and sample rate")
    if descriptor not in DESCRIPTORS:
        raise UserError(
            f"Unknown descriptor '{descriptor}'. Use one of {names}, or a function of samples and sample rate."
        )
    return descriptor, DESCRIPTORS[descriptor]
