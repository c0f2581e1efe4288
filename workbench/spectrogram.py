"""Mel spectrograms of audio, computed as librosa computes them, but without librosa, which takes 130 MB of memory."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

FLOOR_DB = -80.0  # relative to the maximum
SILENCE = 1e-10  # mel power below which sound is rounding
_HERTZ_PER_MEL = 200 / 3  # up to the corner
_CORNER = 1000.0  # Hz; above it, mels are logarithmic
_STEP = np.log(6.4) / 27
_FRAMES_AT_ONCE = 512


def mel_spectrogram(
    audio: Float[np.ndarray, "channel sample"],
    sample_rate: int,
    n_mels: int = 96,
    hop_seconds: float = 0.01,
) -> Float[np.ndarray, "mel frame"]:
    """Return the mel power spectrogram of the channel mean in dB relative to its maximum, floored at `FLOOR_DB`.

    Frames are as in `mel_power`. Silence, which has no maximum, is at the floor.
    """
    power = mel_power(audio, sample_rate, n_mels, hop_seconds)
    loudest = power.max(initial=0.0)
    if loudest <= SILENCE:
        return np.full_like(power, FLOOR_DB)
    decibels = 10 * np.log10(np.maximum(power, SILENCE) / loudest)
    return np.maximum(decibels, FLOOR_DB)


def mel_power(
    audio: Float[np.ndarray, "channel sample"],
    sample_rate: int,
    n_mels: int = 96,
    hop_seconds: float = 0.01,
) -> Float32[np.ndarray, "mel frame"]:
    """Return the power of the channel mean in mel bands up to half the sample rate.

    Frames are `hop_seconds` apart, but at most a frame's length, and the first is centred on time 0.
    """
    length = 2048 if sample_rate > 24000 else 1024
    hop = min(round(hop_seconds * sample_rate), length)
    padded = np.pad(audio.mean(axis=0, dtype=np.float32), length // 2)
    frames = sliding_window_view(padded, length)[::hop]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)  # von Hann's
    filters = mel_filters(sample_rate, length, n_mels)
    power = np.empty((n_mels, len(frames)), dtype=np.float32)
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        some = slice(first, first + _FRAMES_AT_ONCE)
        spectrum = fft.rfft(frames[some] * window)
        power[:, some] = filters @ (spectrum.real**2 + spectrum.imag**2).T
    return power


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, length: int, n_mels: int) -> Float32[np.ndarray, "mel frequency"]:
    """Return the weights of the frequencies of a frame of `length` samples in each mel band.

    Triangles of equal area whose corners are evenly spaced in mels from 0 Hz to half the sample rate; mels as in
    Slaney's Auditory Toolbox (1998): linear up to 1 kHz, then logarithmic.
    """
    highest = _CORNER / _HERTZ_PER_MEL + np.log(sample_rate / 2 / _CORNER) / _STEP
    if sample_rate / 2 < _CORNER:
        highest = sample_rate / 2 / _HERTZ_PER_MEL
    corners = _hertz(np.linspace(0, highest, n_mels + 2))
    frequencies = np.arange(length // 2 + 1) * sample_rate / length
    low, middle, high = (corners[first : first + n_mels, None] for first in range(3))
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (high - low)).astype(np.float32)


def _hertz(mels: Float[np.ndarray, " mel"]) -> Float[np.ndarray, " mel"]:
    corner = _CORNER / _HERTZ_PER_MEL
    return np.where(mels < corner, mels * _HERTZ_PER_MEL, _CORNER * np.exp(_STEP * (mels - corner)))
