"""The synthesiser: deterministic, on the grid, and audibly true to its labels by measurements of its own."""

import numpy as np
import pytest

from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.synth import (
    FRAME,
    GRID_HZ,
    SAMPLE_RATE,
    clip_labels,
    dataset,
    labelled_clip,
    note,
    scale,
    synthesise,
)
from cache.errors import UserError


def clip(
    instrument: str = "piano", tempo: str = "slow", mood: str = "happy", drums: str = "without drums"
) -> np.ndarray:
    return synthesise(Labels(instrument, tempo, mood, drums), np.random.default_rng(0))


def strength(audio: np.ndarray, hz: float) -> float:
    """Amplitude of the sinusoid of `hz` in `audio`."""
    time = np.arange(len(audio)) / SAMPLE_RATE
    return float(2 * abs(np.mean(audio * np.exp(-2j * np.pi * hz * time))))


def test_a_data_set_is_determined_by_its_seed_and_extends_its_own_beginning() -> None:
    long, long_labels = dataset(6, seed=3)
    short, short_labels = dataset(2, seed=3, first=1)
    np.testing.assert_array_equal(short, long[1:3])
    assert short_labels == long_labels[1:3] == [clip_labels(3, 1), clip_labels(3, 2)]
    other, _ = labelled_clip(4, 0)
    assert np.abs(other - long[0]).max() > 0.01


def test_clips_are_bounded_audible_and_as_long_as_asked() -> None:
    clips, _ = dataset(20, seed=1)
    assert clips.shape == (20, 4 * SAMPLE_RATE)
    assert clips.dtype == np.float32
    assert np.abs(clips).max() < 0.8
    assert np.sqrt(np.mean(clips**2, axis=1)).min() > 0.05
    assert len(labelled_clip(0, 0, seconds=2.5)[0]) == 2.5 * SAMPLE_RATE


def test_every_value_of_every_concept_occurs() -> None:
    labels = [clip_labels(0, index) for index in range(200)]
    for concept, values in CONCEPTS.items():
        assert {label.value(concept) for label in labels} == set(values)


@pytest.mark.parametrize("instrument", CONCEPTS["instrument"])
def test_a_note_has_its_energy_at_multiples_of_a_fundamental_on_the_grid(instrument: str) -> None:
    unit = scale(instrument, "happy")[1]
    sound = note(instrument, unit, 20, vibrato=False)[FRAME : 17 * FRAME]
    power = np.square(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))))
    hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    off = hz - unit * GRID_HZ * np.round(hz / (unit * GRID_HZ))
    assert power[np.abs(off) < 5].sum() > 0.99 * power.sum()
    assert strength(sound, unit * GRID_HZ) > 0.01


def test_a_held_note_repeats_every_two_frames() -> None:
    sound = note("flute", scale("flute", "sad")[2], 20)
    np.testing.assert_allclose(sound[4 * FRAME : 6 * FRAME], sound[6 * FRAME : 8 * FRAME], atol=1e-5)


def test_fast_clips_have_twice_the_onsets_of_slow_ones_and_all_on_frames() -> None:
    onsets = {}
    for tempo in CONCEPTS["tempo"]:
        power = np.square(clip(tempo=tempo)).reshape(-1, FRAME).mean(axis=1)
        jumps = np.flatnonzero(np.diff(power, prepend=0) > 0.2 * power.max())
        onsets[tempo] = jumps.tolist()
    assert onsets["slow"] == list(range(0, 100, 20))
    assert onsets["fast"] == list(range(0, 100, 10))


def test_happy_clips_have_the_major_and_sad_ones_the_minor_third() -> None:
    # The first chord, on the piano: 200 Hz and 250 Hz, or 200 Hz and 237.5 Hz.
    for mood, third, other in (("happy", 250.0, 237.5), ("sad", 237.5, 250.0)):
        opening = clip(mood=mood)[: 20 * FRAME]
        assert strength(opening, third) > 4 * strength(opening, other)


def test_drums_add_a_kick_below_the_notes_and_a_hat_above_them() -> None:
    def fraction(audio: np.ndarray, low: float, high: float) -> float:
        power = np.square(np.abs(np.fft.rfft(audio)))
        hz = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
        return float(power[(hz >= low) & (hz < high)].sum())

    with_drums, without = clip(drums="with drums"), clip(drums="without drums")
    assert fraction(with_drums, 30, 120) > 50 * fraction(without, 30, 120)
    assert fraction(with_drums, 6000, 8000) > 50 * fraction(without, 6000, 8000)


def test_an_unknown_value_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(UserError, match=r"mood 'angry'.*happy, sad"):
        Labels("violin", "slow", "angry", "with drums")


def test_the_canonical_prompt() -> None:
    labels = Labels("female vocal", "slow", "sad", "without drums")
    assert labels.prompt == "a slow sad female vocal song without drums"
