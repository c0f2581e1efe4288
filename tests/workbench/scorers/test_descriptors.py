"""Descriptors of hand-made sounds whose answers are known."""

import numpy as np
import pytest

from tests.tolerances import assert_close
from workbench.scorers.descriptors import DESCRIPTORS, in_unit

RATE = 16_000


def measured(name: str, samples: np.ndarray, rate: int = RATE) -> float:
    return DESCRIPTORS[name].measure(samples, rate)


def seconds(length: float, rate: int = RATE) -> np.ndarray:
    return np.arange(round(length * rate)) / rate


def tone(hz: float, length: float = 1.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * seconds(length))


def noise(length: float = 1.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(length * RATE))


def clicks(bpm: float, length: float = 6.0) -> np.ndarray:
    since = np.mod(seconds(length), 60 / bpm)
    return np.exp(-60 * since) * np.sin(2 * np.pi * 1000 * since)


def chord(*notes: int) -> np.ndarray:
    """Sines of MIDI notes with three overtones."""
    hz = [440 * 2 ** ((note - 69) / 12) for note in notes]
    return sum((tone(k * each, 2.0, 0.1 / k) for each in hz for k in (1, 2, 3)), np.zeros(2 * RATE))


def test_the_level_is_the_root_mean_square() -> None:
    assert_close(measured("level", tone(1000)), 20 * np.log10(0.5 / np.sqrt(2)))


def test_loudness_is_that_of_the_standard() -> None:
    """BS.1770: a full-scale sine at 997 Hz in one channel has -3.01 LUFS; half the amplitude, 6.02 LU less.

    A meter may be off by 0.1 LU (EBU Tech 3341).
    """
    sine = np.sin(2 * np.pi * 997 * seconds(3, 48_000))
    assert measured("loudness", sine, 48_000) == pytest.approx(-3.01, abs=0.1)
    assert measured("loudness", sine / 2, 48_000) == pytest.approx(-9.03, abs=0.1)


def test_the_loudness_range_is_that_of_the_standard() -> None:
    """EBU Tech 3342, case 1: 20 s of tone at -20 dBFS, then 20 s at -30, has a range of 10 LU."""
    steps = np.concatenate([tone(1000, 20, 10**-1), tone(1000, 20, 10**-1.5)])
    assert measured("loudness_range", steps) == pytest.approx(10, abs=1)
    assert measured("loudness_range", tone(1000, 20)) == pytest.approx(0, abs=0.1)


def test_brightness_is_the_frequency_of_a_tone_and_silence_has_none() -> None:
    assert measured("brightness", tone(1000)) == pytest.approx(1000, rel=0.05)
    quiet_start = np.where(seconds(1) < 0.5, 0, tone(1000))
    assert measured("brightness", quiet_start) == pytest.approx(1000, rel=0.1)


def test_noise_is_flat_and_a_tone_is_not() -> None:
    """Power of noise is exponentially distributed: the geometric mean is exp(-Euler's constant) of the mean."""
    assert measured("flatness", noise(4)) == pytest.approx(np.exp(-np.euler_gamma), abs=0.01)
    assert measured("flatness", tone(1000)) < 0.01


def test_onsets_are_counted() -> None:
    assert measured("onset_rate", clicks(120)) == pytest.approx(2, abs=0.2)
    assert measured("onset_rate", clicks(240)) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("bpm", [80, 120, 150])
def test_clicks_have_their_tempo(bpm: float) -> None:
    assert measured("tempo", clicks(bpm)) == pytest.approx(bpm, rel=0.03)


def test_a_tone_has_its_pitch_and_noise_has_none() -> None:
    half = np.concatenate([tone(440, 0.5), 1e-3 * noise(0.5)])
    assert measured("pitch", half) == pytest.approx(440, rel=0.01)
    assert measured("voicing", half) == pytest.approx(0.5, abs=0.15)


def test_clicks_are_percussive_and_tones_are_not() -> None:
    assert measured("percussive_share", clicks(120, 2)) > 0.9
    assert measured("percussive_share", tone(440, 2)) < 0.1


def test_a_transposed_chord_keeps_its_mode() -> None:
    for tonic in (60, 65, 70):
        assert measured("mode", chord(tonic, tonic + 4, tonic + 7)) > 0.05
        assert measured("mode", chord(tonic, tonic + 3, tonic + 7)) < -0.05


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_silence_and_broken_sound_have_no_number(name: str) -> None:
    broken = tone(440, 4)
    broken[7] = np.nan
    for samples in (np.zeros(4 * RATE), broken, np.zeros(0)):
        assert np.isnan(measured(name, samples))


@pytest.mark.parametrize(("name", "shortest"), [("loudness", 0.4), ("loudness_range", 3.0)])
def test_what_is_too_short_for_a_standard_has_no_number(name: str, shortest: float) -> None:
    assert np.isnan(measured(name, tone(440, shortest)[1:]))
    assert np.isfinite(measured(name, tone(440, shortest)))


def test_values_are_written_with_their_units() -> None:
    assert in_unit("loudness", -23.456789) == "−23.46 LUFS"
    assert in_unit("voicing", 0.5) == "0.5"
    assert in_unit("warmth", np.nan) == "undefined"
