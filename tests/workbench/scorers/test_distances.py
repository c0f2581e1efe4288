"""What all distances have in common, and closed forms of those between spectrograms."""

import logging

import numpy as np
import pytest

from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.scorers.tunes import tune
from workbench.scorers.distances import DISTANCES, Distance, distance_identity, load_distance
from workbench.scorers.log_mel_distance import LogMelDistance
from workbench.spectrogram import FLOOR_DB, mel_spectrogram

RATE = 16_000
SPECTRAL = ("log-mel", "mr-stft")
WEIGHT_FREE = (*SPECTRAL, "harmony", "self-similarity", "rhythm", "melody")


def noise(seed: int = 0, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A clip (channel, sample) of white noise in both channels."""
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (2, round(seconds * rate)))


def apart(name: str, audio: np.ndarray, reference: np.ndarray, rate: int = RATE) -> float:
    return float(load_distance(name).compare(audio[None], reference[None], rate)[0])


@pytest.fixture(params=SPECTRAL)
def distance(request: pytest.FixtureRequest) -> Distance:
    return load_distance(request.param)


def test_every_distance_has_its_name_and_an_identity_of_its_own() -> None:
    loaded = [load_distance(name) for name in WEIGHT_FREE]
    assert [one.name for one in loaded] == list(WEIGHT_FREE)
    assert all(isinstance(one, Distance) for one in loaded)
    identities = [distance_identity(name) for name in WEIGHT_FREE]
    assert identities == [one.identity for one in loaded]
    assert len(set(identities)) == len(identities)


def test_another_formula_or_library_is_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = distance_identity("log-mel"), distance_identity("rhythm")
    monkeypatch.setattr("workbench.scorers.log_mel_distance.LogMelDistance.formula", 2)
    monkeypatch.setattr("workbench.scorers.clip_distance.version", lambda library: "0")
    assert distance_identity("log-mel") != before[0]
    assert distance_identity("rhythm") != before[1]


def test_an_unknown_distance_is_refused_with_the_list() -> None:
    with pytest.raises(
        UserError, match=rf"Unknown distance 'mel'. Distances: {', '.join(map(repr, DISTANCES))}"
    ):
        load_distance("mel")


@pytest.mark.parametrize("name", WEIGHT_FREE[:-1])  # melody takes a second, and is in test_mir_distances.py
def test_a_clip_is_0_from_itself(name: str) -> None:
    assert_close(apart(name, tune(seconds=2), tune(seconds=2)), 0.0)


@pytest.mark.parametrize("name", ["log-mel", "harmony", "self-similarity", "rhythm"])
def test_a_symmetric_distance_is_the_same_both_ways_and_more_than_0(name: str) -> None:
    one, other = tune(), tune(bpm=90)
    found = load_distance(name).compare(np.stack([one, other]), np.stack([other, one]), RATE)
    assert found[0] > 0.1
    assert_close(*found)


def test_the_features_of_a_reference_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all strengths of a trial; strength 0, which is the reference itself, needs none of its own."""
    distance = LogMelDistance()
    heard: list[np.ndarray] = []
    features = distance.features
    monkeypatch.setattr(distance, "features", lambda *clip: heard.append(clip[0]) or features(*clip))
    arms, reference = np.stack([noise(0), noise(1), noise(2)]), np.stack([noise(0)] * 3)
    together = distance.compare(arms, reference, RATE)
    assert len(heard) == 3
    assert_close(distance.compare(arms[2:], reference[2:], RATE)[0], together[2])
    assert len(heard) == 4
    distance.compare(arms[:1], arms[1:2], RATE)
    assert len(heard) == 6


def test_a_pair_is_compared_alone_and_by_the_mean_of_its_channels(distance: Distance) -> None:
    one, other = noise(0), noise(1)
    together = distance.compare(np.stack([noise(2), one]), np.stack([noise(3), other]), RATE)
    assert_close(distance.compare(one[None], other[None], RATE)[0], together[1])
    mono = distance.compare(one.mean(axis=0)[None, None], other.mean(axis=0)[None, None], RATE)
    assert_close(mono[0], together[1])


def test_what_cannot_be_compared_is_nan_with_a_reason(
    distance: Distance, caplog: pytest.LogCaptureFixture
) -> None:
    good = noise()
    broken, opposite = good.copy(), good.copy()
    broken[1, 5] = np.nan
    opposite[1] = -opposite[0]
    audio = np.stack([np.zeros_like(good), good, good, broken, opposite])
    reference = np.stack([good, np.zeros_like(good), good, good, good])
    with caplog.at_level(logging.ERROR):
        found = distance.compare(audio, reference, RATE)
        short = distance.compare(*[good[None, :, : round(distance.min_seconds * RATE) - 1]] * 2, RATE)
    assert np.isnan(found).tolist() == [True, True, False, True, True]
    assert np.isnan(short).all()
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "it is silent.",
        "its reference is silent.",
        "it has samples that are not finite numbers.",
        "it is silent.",
        f"it is shorter than {distance.min_seconds:g} s.",
    ]


def test_the_shortest_clip_has_a_distance(distance: Distance) -> None:
    for rate in (1000, RATE, 48_000):
        pair = [noise(seed, distance.min_seconds, rate)[None] for seed in (0, 1)]
        assert np.isfinite(distance.compare(*pair, rate)).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_too_large_have_no_distance(distance: Distance) -> None:
    assert np.isnan(distance.compare(1e200 * noise()[None], noise()[None], RATE)).all()


def test_clips_of_another_shape_are_refused(distance: Distance) -> None:
    compare = type(distance).compare.__wrapped__  # without the type check, which users do not have
    clips = noise()[None]
    with pytest.raises(UserError, match="three dimensions"):
        compare(distance, clips, clips[0], RATE)
    for others in (np.repeat(clips, 2, axis=0), clips[..., 1:]):
        with pytest.raises(UserError, match=r"same number of .*; got \(1, 2, 16000\) and "):
            compare(distance, clips, others, RATE)


# Closed forms


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_a_gain_is_as_many_decibels_of_log_mel(rate: int) -> None:
    clip = noise(rate=rate)
    assert apart("log-mel", 0.5 * clip, clip, rate) == pytest.approx(20 * np.log10(2), rel=1e-5)


def test_log_mel_levels_end_80_decibels_below_the_loudest() -> None:
    clip = 3 * noise()
    above = mel_spectrogram(clip, RATE) - FLOOR_DB  # which is relative to the loudest, and has the same floor
    assert apart("log-mel", 4e-5 * clip, clip) == pytest.approx(above.mean(), rel=1e-5)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_a_gain_changes_magnitudes_and_their_logarithms_by_known_amounts(rate: int) -> None:
    """Magnitudes g times as large: spectral convergence is |g - 1|, the logarithms differ by |log g|."""
    clip = noise(rate=rate)
    assert apart("mr-stft", 3 * clip, clip, rate) == pytest.approx(2 + np.log(3), rel=1e-4)
    assert apart("mr-stft", clip, 3 * clip, rate) == pytest.approx(2 / 3 + np.log(3), rel=1e-4)
