"""Numbers that describe a recording: level and loudness, spectrum, onsets and tempo, pitch, mode."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import AfterValidator

from cache.errors import UserError
from workbench.scorers.librosa_import import import_librosa
from workbench.validation import Names, distinct, must_be

Samples = Float[np.ndarray, " sample"]
Measure = Callable[[Samples, int], float]
"""Returns the descriptor of a mono recording with this sample rate in Hz; NaN if it has none."""

FRAME = 0.01
"""Seconds between frames in which onsets are looked for."""
PITCHES = 65.4, 1046.5
"""Lowest and highest pitch that is looked for, in Hz: C2 and C6."""
SILENT_POWER = 1e-10
"""Mean square below which a recording is silent: -100 dB relative to full scale."""


def of_sound(measure: Measure) -> Measure:
    """Return the function that gives NaN for a recording that is empty, silent or has samples that are not finite."""

    @wraps(measure)
    def call(samples: Samples, sample_rate: int) -> float:
        power = np.square(samples, dtype=float).mean() if len(samples) else 0.0
        return measure(samples, sample_rate) if np.isfinite(power) and power > SILENT_POWER else np.nan

    return call


# How well each pitch class fits a key, from its tonic on (Krumhansl 1990, Cognitive Foundations of Musical Pitch).
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@of_sound
def level(samples: Samples, sample_rate: int) -> float:  # noqa: ARG001 - the same at all
    """Return the root mean square in dB relative to full scale."""
    return float(10 * np.log10(np.square(samples, dtype=float).mean()))


@of_sound
def loudness(samples: Samples, sample_rate: int) -> float:
    """Return the integrated loudness in LUFS (ITU-R BS.1770-4); NaN if it is shorter than 0.4 s."""
    import pyloudnorm

    meter = pyloudnorm.Meter(sample_rate)
    if len(samples) < meter.block_size * sample_rate:
        return np.nan
    found = float(meter.integrated_loudness(np.asarray(samples, dtype=float)))
    return found if np.isfinite(found) else np.nan


@of_sound
def loudness_range(samples: Samples, sample_rate: int) -> float:
    """Return the loudness range in LU (EBU Tech 3342); NaN if it is shorter than 3 s."""
    import pyloudnorm

    if len(samples) < 3 * sample_rate:
        return np.nan
    return float(pyloudnorm.Meter(sample_rate).loudness_range(np.asarray(samples, dtype=float)))


@of_sound
def brightness(samples: Samples, sample_rate: int) -> float:
    """Return the spectral centroid in Hz, over frames weighted by their magnitude."""
    magnitudes = _magnitudes(samples)
    centroids = import_librosa().feature.spectral_centroid(S=magnitudes, sr=sample_rate)[0]
    return float(np.average(centroids, weights=magnitudes.sum(axis=0)))


@of_sound
def flatness(samples: Samples, sample_rate: int) -> float:  # noqa: ARG001 - the same at all
    """Return the spectral flatness, the mean over frames: 0 for a tone, 0.56 for white noise."""
    return float(import_librosa().feature.spectral_flatness(S=_magnitudes(samples)).mean())


@of_sound
def onset_rate(samples: Samples, sample_rate: int) -> float:
    """Return the number of onsets per second that librosa detects."""
    hop = _hop(sample_rate)
    onsets = import_librosa().onset.onset_detect(
        y=np.asarray(samples, dtype=np.float32), sr=sample_rate, hop_length=hop
    )
    return len(onsets) * sample_rate / len(samples)


@of_sound
def tempo(samples: Samples, sample_rate: int) -> float:
    """Return the tempo in beats per minute, by librosa: often half or double of what a listener would tap."""
    hop = _hop(sample_rate)
    curve = import_librosa().onset.onset_strength(
        y=np.asarray(samples, dtype=np.float32), sr=sample_rate, hop_length=hop
    )
    if not curve.any():
        return np.nan
    return float(import_librosa().feature.tempo(onset_envelope=curve, sr=sample_rate, hop_length=hop)[0])


@of_sound
def pitch(samples: Samples, sample_rate: int) -> float:
    """Return the median pitch in Hz of the frames that have one, by pYIN, which expects one voice; NaN if none has."""
    found = _pitches(samples, sample_rate)
    return float(np.nanmedian(found)) if np.isfinite(found).any() else np.nan


@of_sound
def voicing(samples: Samples, sample_rate: int) -> float:
    """Return the fraction of frames that have a pitch, by pYIN."""
    return float(np.isfinite(_pitches(samples, sample_rate)).mean())


@of_sound
def percussive_share(samples: Samples, sample_rate: int) -> float:  # noqa: ARG001 - the same at all
    """Return the percussive part's share of the energy, by median filters along time and frequency.

    Fitzgerald 2010, "Harmonic/percussive separation using median filtering".
    """
    harmonic, percussive = import_librosa().decompose.hpss(_magnitudes(samples))
    energies = np.square(harmonic).sum(), np.square(percussive).sum()
    return float(energies[1] / sum(energies))


@of_sound
def mode(samples: Samples, sample_rate: int) -> float:
    """Return how much better the best major key fits than the best minor one: the difference of correlations.

    Chroma, the mean over time, are correlated with the 24 keys' profiles (Krumhansl 1990).
    """
    chroma = (
        import_librosa()
        .feature.chroma_cqt(
            y=np.asarray(samples, dtype=np.float32), sr=sample_rate, fmin=PITCHES[0], n_octaves=5
        )
        .mean(axis=1)
    )
    if not np.ptp(chroma):
        return np.nan
    major, minor = (
        max(np.corrcoef(np.roll(profile, tonic), chroma)[0, 1] for tonic in range(12))
        for profile in (MAJOR, MINOR)
    )
    return float(major - minor)


class Descriptor(NamedTuple):
    """A descriptor: its unit, "" if it has none, and its function."""

    unit: str
    measure: Measure


DESCRIPTORS = {
    "level": Descriptor("dB", level),
    "loudness": Descriptor("LUFS", loudness),
    "loudness_range": Descriptor("LU", loudness_range),
    "brightness": Descriptor("Hz", brightness),
    "flatness": Descriptor("", flatness),
    "onset_rate": Descriptor("onsets per second", onset_rate),
    "tempo": Descriptor("BPM", tempo),
    "pitch": Descriptor("Hz", pitch),
    "voicing": Descriptor("", voicing),
    "percussive_share": Descriptor("", percussive_share),
    "mode": Descriptor("", mode),
}


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in DESCRIPTORS]:
        raise ValueError(f"there is no descriptor {unknown[0]!r}: use {', '.join(DESCRIPTORS)}")
    return distinct(names)


DescriptorNames = Annotated[Names, AfterValidator(_known)]
"""Descriptors in a spec or a prompt set: names, each once."""


def four_digits(value: float) -> str:
    """Format a descriptor's value with 4 significant digits, large ones without an exponent; "undefined" for NaN."""
    return "undefined" if np.isnan(value) else f"{float(f'{value:.4g}'):g}".replace("-", "−")


def unit_of(descriptor: str) -> str:
    """Return the unit of a descriptor; "" if it has none, or is a user's own."""
    return DESCRIPTORS[descriptor].unit if descriptor in DESCRIPTORS else ""


def in_unit(descriptor: str, value: float) -> str:
    """Format a descriptor's value with 4 significant digits and its unit, if it has one."""
    return f"{four_digits(value)} {unit_of(descriptor)}".strip()


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
    return descriptor, DESCRIPTORS[descriptor].measure


def _magnitudes(samples: Samples) -> Float[np.ndarray, "bin frame"]:
    return np.abs(import_librosa().stft(np.asarray(samples, dtype=np.float32))).astype(float)


def _hop(sample_rate: int) -> int:
    """Return the samples between frames; with librosa's 512, at low rates one onset counts in two frames."""
    return max(1, round(FRAME * sample_rate))


def _pitches(samples: Samples, sample_rate: int) -> Float[np.ndarray, " frame"]:
    """Return the pitch of each frame in Hz, NaN where there is none (pYIN: Mauch and Dixon 2014)."""
    found, *_ = import_librosa().pyin(
        np.asarray(samples, dtype=np.float32), fmin=PITCHES[0], fmax=PITCHES[1], sr=sample_rate
    )
    return found
