"""Harmony, self-similarity, rhythm and melody: tunes and features whose distance is known."""

import logging

import numpy as np
import pytest

from tests.tolerances import assert_close
from tests.workbench.scorers.tunes import RATE, tune
from workbench.scorers.clip_distance import NoDistanceError
from workbench.scorers.distances import load_distance
from workbench.scorers.harmony_distance import HarmonyDistance
from workbench.scorers.melody_distance import MelodyDistance
from workbench.scorers.rhythm_distance import RhythmDistance
from workbench.scorers.self_similarity_distance import SelfSimilarityDistance

TUNE = tune()


def compared(name: str, *clips: np.ndarray) -> list[float]:
    """Return the distances of clips from `TUNE`."""
    return load_distance(name).compare(np.stack(clips), np.stack([TUNE] * len(clips)), RATE).tolist()


def test_a_tune_in_another_key_has_another_harmony_and_the_same_repetitions() -> None:
    third, octave = compared("harmony", tune(transposed=3), tune(transposed=12))
    assert third > 0.5
    assert octave < 0.05
    (structure,) = compared("self-similarity", tune(transposed=3))
    assert structure < 0.05


def test_another_tempo_is_another_harmony_at_the_time_and_other_repetitions() -> None:
    slower = tune(bpm=90)
    assert compared("harmony", slower)[0] > 0.3
    assert compared("self-similarity", slower)[0] > 0.3


def test_rhythm_hears_tempo_and_shift_but_neither_key_nor_level() -> None:
    key, level, tempo, shift = compared(
        "rhythm", tune(transposed=3), 0.5 * TUNE, tune(bpm=90), tune(delay=0.25)
    )
    assert (key, level) == (0, 0)
    assert tempo > 0.5
    assert shift > 0.8


def test_a_melody_in_another_key_is_entirely_different() -> None:
    first = slice(round(0.6 * RATE))
    reference, higher = TUNE[None, :, first], tune(transposed=3)[None, :, first]
    distance = load_distance("melody")
    assert distance.compare(higher, reference, RATE) > 0.9
    assert distance.compare(reference, reference, RATE) == 0
    assert distance.compare(0.5 * reference, reference, RATE) == pytest.approx(0, abs=0.1)


def test_what_was_not_found_is_no_distance_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workbench.scorers.rhythm_distance.beat_times", lambda *clip: np.zeros(0))
    with caplog.at_level(logging.ERROR):
        assert np.isnan(compared("rhythm", 0.5 * TUNE)).all()
    assert [record.getMessage() for record in caplog.records] == [
        "rhythm cannot compare clip 0: it has no beats."
    ]
    with pytest.raises(NoDistanceError, match="its reference has no beats"):
        RhythmDistance().between(np.ones(1), np.zeros(0))
    with pytest.raises(NoDistanceError, match="its reference has no pitch"):
        MelodyDistance().between(np.full(3, 220.0), np.zeros(3))
    with pytest.raises(NoDistanceError, match="it has no pitch classes"):
        HarmonyDistance().between(np.zeros((12, 3)), np.zeros((12, 3)))


# Closed forms, from features


def unit(frames: np.ndarray) -> np.ndarray:
    return frames / np.linalg.norm(frames, axis=0)


def test_harmony_is_the_mean_over_frames_that_sound() -> None:
    """Cosines 1, 0 and √½; a frame that is silent in one clip has cosine 0, and one silent in both is left out."""
    half = np.sqrt(0.5)
    ours = np.array([[1, 1, half, 0, 0], [0, 0, half, 0, 0]])
    reference = np.array([[1.0, 0, 1, 1, 0], [0, 1, 0, 0, 0]])
    assert_close(HarmonyDistance().between(ours, reference), 1 - (1 + 0 + half + 0) / 4)


def test_self_similarity_is_that_of_whole_matrices() -> None:
    random = np.random.default_rng(0)
    one, other = (unit(random.uniform(size=(12, 40))) for _ in range(2))
    other[:, :20] = one[:, :20]
    above = np.triu_indices(40, k=1)
    expected = 1 - np.corrcoef((one.T @ one)[above], (other.T @ other)[above])[0, 1]
    assert 0.1 < expected < 0.9
    distance = SelfSimilarityDistance()
    assert_close(distance.between(one, other), expected)
    assert_close(distance.between(other, one), expected)
    assert_close(distance.between(np.roll(one, 3, axis=0), one), 0.0)


def test_self_similarity_below_no_correlation_is_1_and_of_a_drone_undefined() -> None:
    first, second = np.eye(12)[0], np.eye(12)[1]
    halves = np.stack([first] * 10 + [second] * 10, axis=1)
    turns = np.stack([first, second] * 10, axis=1)
    distance = SelfSimilarityDistance()
    assert distance.between(halves, turns) == 1
    with pytest.raises(NoDistanceError, match="its reference's chroma hardly change"):
        distance.between(halves, np.stack([first] * 20, axis=1))


def test_rhythm_is_the_share_of_beats_that_agree_within_70_ms() -> None:
    """3 of 4 beats agree with 3 of 5: precision 3/5, recall 3/4, F-measure 2/3."""
    reference = np.array([0.5, 1.0, 1.5, 2.0])
    ours = np.array([0.56, 1.05, 1.42, 1.75, 1.95])
    assert_close(RhythmDistance().between(ours, reference), 1 / 3)
    assert_close(RhythmDistance().between(reference, ours), 1 / 3)


def test_melody_is_the_share_of_pitched_frames_within_50_cents() -> None:
    """Of five pitched frames: equal, 40 cents, 60 cents, an octave, no pitch; two agree. Of the clip's six, two do."""
    cents = 2 ** (np.array([0, 40, 60, 1200]) / 1200)
    reference = np.array([220.0, 220, 220, 220, 220, 0, 0])
    ours = np.array([*(220 * cents), 0, 330, 330])
    assert_close(MelodyDistance().between(ours, reference), 3 / 5)
    assert_close(MelodyDistance().between(reference, ours), 4 / 6)
    assert_close(MelodyDistance().between(np.zeros(7), reference), 1.0)
