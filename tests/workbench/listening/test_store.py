"""Answers are stored once and for all."""

import sqlite3
from pathlib import Path

import pytest

from cache.errors import UserError
from cache.opening import UnsafeFile
from workbench.listening.orders import Step
from workbench.listening.store import Answer, AnswerStore

STEPS = (Step(kind="consent"), Step(kind="trial", stimuli=("a", "b")), Step(kind="end"))


class Clock:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_answer_stays(tmp_path: Path) -> None:
    clock = Clock()
    store = AnswerStore(tmp_path, "study", clock)
    listener = store.add_listener(lambda number: STEPS)
    assert listener is not None
    store.show(0, 1)
    clock.now = 1004.5
    store.show(0, 1)  # the page was loaded again: the time since it was first shown counts
    assert store.save(0, 1, [2])
    assert not store.save(0, 1, [0])
    # Another process, later.
    again = AnswerStore(tmp_path, "study")
    assert again.answers() == [Answer(0, 1, (2,), 4.5)]
    found = again.listener(listener.token)
    assert found is not None and found.steps == STEPS and found.answered == 1
    assert again.listener("other") is None


def test_answers_are_written_to_the_disk_at_once(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, "study")
    with store._open() as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_listeners_have_numbers_and_secret_tokens_and_nothing_else(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, "study")
    added = [store.add_listener(lambda number: STEPS, most=2) for _ in range(3)]
    assert [one and one.number for one in added] == [0, 1, None]
    assert added[0] is not None and added[1] is not None and added[0].token != added[1].token
    assert len(added[0].token) >= 20
    assert store.file.stat().st_mode & 0o077 == 0
    with sqlite3.connect(store.file) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(listeners)")]
    assert columns == ["number", "token", "steps"]


def test_answers_to_another_study_are_refused(tmp_path: Path) -> None:
    AnswerStore(tmp_path, "study")
    with pytest.raises(UserError, match="another version"):
        AnswerStore(tmp_path, "other")


def test_damaged_files_and_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_bytes(b"no database at all, but long enough to look")
    with pytest.raises(UserError, match="damaged"):
        AnswerStore(tmp_path, "study")
    other = tmp_path / "other"
    other.mkdir()
    (other / "answers.sqlite").symlink_to(tmp_path / "answers.sqlite")
    with pytest.raises(UnsafeFile):
        AnswerStore(other, "study")


def test_answers_that_are_not_numbers_are_damage(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, "study")
    with sqlite3.connect(store.file) as database:
        database.execute("INSERT INTO answers VALUES (0, 0, '[1e5]', 1)")
    with pytest.raises(UserError, match="damaged"):
        store.answers()
