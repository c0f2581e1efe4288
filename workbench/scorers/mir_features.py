"""Features of music information retrieval, as in the paper's measures of what steering preserves (arXiv:2602.11910)."""

import warnings

import numpy as np
import soxr
from jaxtyping import Float

from workbench.scorers.clip_distance import Samples
from workbench.scorers.librosa_import import import_librosa

RATE = 22_050
HOP = 512
"""Samples at `RATE` between frames of chroma and pitch."""
PITCHES = "C2", "C7"


def at_rate(mono: Samples, sample_rate: int) -> Float[np.ndarray, " resampled"]:
    """Return a clip at `RATE`, by soxr in quality "HQ"."""
    at = mono if sample_rate == RATE else soxr.resample(mono, sample_rate, RATE, quality="HQ")
    return at.astype(np.float32)


def unit_chroma(mono: Samples, sample_rate: int) -> Float[np.ndarray, "pitch_class frame"]:
    """Return chroma of a constant-Q transform, each frame of length 1, or 0 where it is silent.

    The longest filter, of the lowest note, lasts 1.6 s.
    """
    samples = at_rate(mono, sample_rate)
    with warnings.catch_warnings():
        # Below 3 s, about frames of the lowest octave, which are longer than its few samples and padded.
        warnings.filterwarnings("ignore", message="n_fft=")
        chroma = import_librosa().feature.chroma_cqt(y=samples, sr=RATE, hop_length=HOP).astype(float)
    lengths = np.linalg.norm(chroma, axis=0)
    return np.divide(chroma, lengths, out=np.zeros_like(chroma), where=lengths > 0)


def beat_times(mono: Samples, sample_rate: int) -> Float[np.ndarray, " beat"]:
    """Return the times of beats in seconds that librosa tracks (Ellis 2007)."""
    _, beats = import_librosa().beat.beat_track(y=at_rate(mono, sample_rate), sr=RATE, units="time")
    return np.asarray(beats, dtype=float)


def pitches(mono: Samples, sample_rate: int) -> Float[np.ndarray, " frame"]:
    """Return the pitch of each frame in Hz, 0 where there is none, by pYIN (Mauch and Dixon 2014) from C2 to C7."""
    low, high = (float(import_librosa().note_to_hz(note)) for note in PITCHES)
    found, *_ = import_librosa().pyin(
        at_rate(mono, sample_rate), fmin=low, fmax=high, sr=RATE, hop_length=HOP, fill_na=0.0
    )
    return found
