"""Cut clips into the 10 s windows that CLAP takes.

The laion-clap package crops a longer clip at random, so that two calls differ. Here consecutive windows cover the
clip; quantisation and padding of short windows are as in the package.
"""

import numpy as np
import soxr
from jaxtyping import Float

SAMPLE_RATE = 48_000
WINDOW_SAMPLES = 10 * SAMPLE_RATE


def mono_48k(
    audio: Float[np.ndarray, "channel sample"], sample_rate: int
) -> Float[np.ndarray, " sample_48k"]:
    """Return the mean of the channels, resampled from `sample_rate` to 48 kHz by soxr in quality "HQ".

    librosa.load does the same, but returns 480,001 samples for 10 s at 44.1 kHz: one window too many.
    """
    mono = audio.mean(axis=0, dtype=np.float64).astype(np.float32)
    return soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="HQ")


def quantise(mono: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " sample"]:
    """Quantise to 16 bits: clip to [-1, 1] and truncate towards zero to multiples of 1/32767."""
    return (np.trunc(np.clip(mono, -1.0, 1.0) * np.float32(32767.0)) / 32767.0).astype(np.float32)


def cut_windows(
    mono: Float[np.ndarray, " sample"],
) -> tuple[Float[np.ndarray, "window sample_10s"], Float[np.ndarray, " window"]]:
    """Cut into consecutive windows of 10 s; return them with the seconds of the clip in each.

    A last window shorter than 10 s is repeated as many whole times as fit, then padded with zeros.
    """
    starts = range(0, len(mono), WINDOW_SAMPLES)
    pieces = [mono[start : start + WINDOW_SAMPLES] for start in starts]
    seconds = np.array([len(piece) / SAMPLE_RATE for piece in pieces])
    return np.stack([_repeat_pad(piece) for piece in pieces]), seconds


def _repeat_pad(piece: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " sample_10s"]:
    repeated = np.tile(piece, WINDOW_SAMPLES // len(piece))
    return np.pad(repeated, (0, WINDOW_SAMPLES - len(repeated)))
