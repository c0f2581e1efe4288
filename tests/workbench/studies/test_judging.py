"""Judges score each recording of a run store once, and never one that is not the run's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cache.errors import UserError
from tests.workbench.studies.test_runs import ABLATED, PATCHED, PLAIN, RUNS, made_store, sound
from workbench.engine.edits import Run
from workbench.scorers import score_key
from workbench.studies.judging import judge
from workbench.studies.runs import RunStore


class Mean:
    """Scores audio by its mean, fails for what is loud, and cannot tell a mood."""

    name, identity = "mean", "1"
    min_seconds = 0.0

    def __init__(self) -> None:
        self.scored = 0

    def check_texts(self, texts: Sequence[str]) -> None:
        if "sad" in texts:
            raise UserError("Mean cannot score 'sad'.")

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        self.check_texts(texts)
        self.scored += len(audio)
        means = audio.mean(axis=(1, 2))
        return np.where(means > 0.15, np.nan, means)[:, None] + np.zeros(len(texts))


def scores(store: RunStore, runs: Sequence[Run], text: str) -> list[float | None]:
    return [record.scores[score_key("mean", "1", text)] for record in store.records(runs)]


def test_a_judge_hears_each_file_once_for_a_text(tmp_path: Path) -> None:
    store, mean = made_store(tmp_path / "study", RUNS, [0, 0, 2]), Mean()
    judge(store, [PLAIN], mean, ["loud"])
    assert mean.scored == 1
    judge(store, RUNS, mean, ["loud"])
    judge(store, RUNS, mean, ["loud"])
    assert mean.scored == 2
    assert scores(store, [PLAIN, PATCHED], "loud") == pytest.approx([1 / 16] * 2, abs=2**-14)
    assert scores(store, [ABLATED], "loud") == [None], "it failed"
    judge(store, RUNS, mean, ["quiet"])
    assert mean.scored == 4
    mean.identity = "2"
    judge(store, RUNS, mean, ["quiet"])
    assert mean.scored == 6


def test_a_text_that_the_judge_cannot_score_has_no_score_and_the_others_do(tmp_path: Path) -> None:
    store, mean = made_store(tmp_path / "study", RUNS, [0, 0, 2]), Mean()
    judge(store, [PLAIN], mean, ["sad", "loud"])
    assert scores(store, [PLAIN], "sad") == [None]
    assert scores(store, [PLAIN], "loud") == pytest.approx([1 / 16], abs=2**-14)


def test_several_texts_need_one_hearing(tmp_path: Path) -> None:
    store, mean = made_store(tmp_path / "study", RUNS, [0, 0, 2]), Mean()
    judge(store, [PLAIN], mean, ["loud"])
    judge(store, RUNS, mean, ["loud", "quiet", "loud"])
    assert mean.scored == 1 + 2, "the plain one again for the other text"
    for text in ("loud", "quiet"):
        assert scores(store, [PLAIN, PATCHED], text) == pytest.approx([1 / 16] * 2, abs=2**-14)


def test_a_file_that_was_heard_is_not_heard_for_a_later_run(tmp_path: Path) -> None:
    store, mean = made_store(tmp_path / "study", [PLAIN]), Mean()
    judge(store, [PLAIN], mean, ["loud"])
    store.add([PLAIN, ABLATED], [0, 0], sound, 16000)
    judge(store, [ABLATED], mean, ["loud"])
    assert mean.scored == 1
    assert scores(store, [ABLATED], "loud") == scores(store, [PLAIN], "loud")


def test_what_has_no_audio_or_is_silent_has_no_score(tmp_path: Path) -> None:
    store, mean = made_store(tmp_path / "study", [PLAIN]), Mean()
    store.add([PATCHED, ABLATED], [0, 1], [None, 0 * sound(0)].__getitem__, 16000)
    judge(store, RUNS, mean, ["loud"])
    assert scores(store, [PATCHED, ABLATED], "loud") == [None, None]
    assert mean.scored == 1


def test_runs_that_were_not_made_are_left_out(tmp_path: Path) -> None:
    store = made_store(tmp_path / "study", [PLAIN])
    judge(store, RUNS, Mean(), ["loud"])
    assert store.holds(RUNS) == [True, False, False]


@pytest.mark.parametrize("harm", ["swapped", "gone", "damaged"])
def test_another_recording_is_not_scored(tmp_path: Path, harm: str) -> None:
    store, mean = made_store(tmp_path / "study", RUNS), Mean()
    one, other = (store.root / record.audio for record in store.records(RUNS)[:2])
    if harm == "swapped":
        one.write_bytes(other.read_bytes())
    elif harm == "gone":
        one.unlink()
    else:
        one.write_bytes(one.read_bytes()[:100])
    with pytest.raises(UserError, match=r"has changed|no recording|damaged"):
        judge(store, RUNS, mean, ["loud"])
    assert mean.scored == 0
    assert all(not record.scores for record in store.records(RUNS))
