"""The scorer of descriptors: what texts mean, on hand-made sounds, and what has no score."""

import inspect
import logging

import numpy as np
import pytest

from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.audio import check_clips
from workbench.scorers import Scorer, heard, load_scorer, scorer_identity
from workbench.scorers.descriptor_scorer import WORDS, DescriptorScorer, high
from workbench.scorers.descriptors import DESCRIPTORS
from workbench.scorers.embedded import EmbeddedScorer
from workbench.scorers.musicnn import MusicnnScorer

RATE = 16_000
SCORER = DescriptorScorer()
TIME = np.arange(4 * RATE) / RATE


def tone(*hz: float) -> np.ndarray:
    return sum((0.1 * np.sin(2 * np.pi * each * TIME) for each in hz), np.zeros(len(TIME)))


def clicks(per_second: float) -> np.ndarray:
    since = np.mod(TIME, 1 / per_second)
    return 0.3 * np.exp(-60 * since) * np.sin(2 * np.pi * 1000 * since)


def scores(samples: np.ndarray, *texts: str) -> list[float]:
    return SCORER.score(samples[None, None], RATE, texts)[0].tolist()


def test_high_is_the_value_and_low_its_opposite() -> None:
    up, down, again = scores(tone(1000), "high brightness", "low brightness", high("brightness"))
    assert up == -down == again == pytest.approx(1000, rel=0.05)
    assert scores(clicks(4), "high onset_rate")[0] == pytest.approx(4, abs=0.3)


def test_words_order_sounds_as_people_do() -> None:
    major, minor = tone(262, 330, 392), tone(262, 311, 392)
    for word, more, less in (
        ("fast", clicks(6), clicks(2)),
        ("loud", tone(440), 0.1 * tone(440)),
        ("bright", tone(3000), tone(300)),
        ("happy", major, minor),
        ("with drums", clicks(2), tone(440)),
    ):
        assert scores(more, word)[0] > scores(less, word)[0], word
    assert WORDS["slow"] == "low onset_rate"
    assert scores(clicks(2), "fast")[0] == -scores(clicks(2), "slow")[0]


def test_a_transposed_chord_keeps_its_mood_but_not_its_pitch() -> None:
    low, high_ = (tone(*(hz * ratio for hz in (220.0, 277.2, 329.6))) for ratio in (1.0, 1.5))
    assert scores(low, "happy")[0] == pytest.approx(scores(high_, "happy")[0], abs=0.1)
    assert scores(high_, "high brightness")[0] > 1.3 * scores(low, "high brightness")[0]


def test_a_score_is_that_of_the_mean_of_channels_whatever_clips_are_beside() -> None:
    two = np.stack([np.stack([tone(440), tone(880)]), np.stack([clicks(3), clicks(5)])])
    together = SCORER.score(two, RATE, ["high brightness", "high flatness"])
    assert_close(SCORER.score(two[1:], RATE, ["high brightness", "high flatness"])[0], together[1])
    assert_close(scores(two[0].mean(axis=0), "high brightness"), together[0, :1])


def test_what_has_no_value_is_nan_with_the_reason_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    broken = tone(440)
    broken[5] = np.nan
    audio = np.stack([np.zeros(len(TIME)), broken, tone(440)])[:, None]
    with caplog.at_level(logging.ERROR):
        found = SCORER.score(audio, RATE, ["high level", "low level"])
        short = SCORER.score(audio[2:, :, : RATE // 4], RATE, ["high level"])
        brief = SCORER.score(audio[2:, :, : 2 * RATE], RATE, ["high loudness_range", "high level"])
    assert np.isnan(found).tolist() == [[True, True], [True, True], [False, False]]
    assert np.isnan(short).all()
    assert np.isnan(brief).tolist() == [[True, False]]
    assert [record.getMessage() for record in caplog.records] == [
        "descriptors cannot score clip 0: it is silent.",
        "descriptors cannot score clip 1: it has samples that are not finite numbers.",
        "descriptors cannot score clip 0: it is shorter than 0.4 s.",
        "descriptors cannot score clip 0: it has no loudness_range.",
    ]


def test_it_hears_every_descriptor_and_nothing_else() -> None:
    known = [*WORDS, *(f"{end} {name}" for name in DESCRIPTORS for end in ("high", "low"))]
    assert heard(SCORER, known) == known
    for text in ("piano", "high", "high ", "brightness", "high high tempo", "high fast", ""):
        with pytest.raises(UserError, match=r"cannot score .*fast.*onset_rate"):
            SCORER.check_texts(["fast", text])


def test_it_is_loaded_by_name_and_known_by_its_code() -> None:
    assert load_scorer("descriptors").identity == scorer_identity("descriptors") == SCORER.identity


@pytest.mark.parametrize("shape", [(RATE,), (2, RATE), (1, 1, 1, RATE)])
def test_audio_without_its_three_dimensions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=f"three dimensions, clip, channel and sample; it has {len(shape)}"):
        check_clips(np.zeros(shape))


@pytest.mark.parametrize(
    "scorer", [EmbeddedScorer(), MusicnnScorer(), SCORER], ids=lambda scorer: scorer.name
)
def test_every_scorer_refuses_it(scorer: Scorer) -> None:
    unchecked = inspect.unwrap(type(scorer).score)  # tests check types before
    with pytest.raises(UserError, match="three dimensions"):
        unchecked(scorer, np.zeros((2, 3 * RATE)), RATE, ["slow"])
