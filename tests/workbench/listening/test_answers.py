"""Answers as tables: what was meant by the place of a clip on a page, and how listeners did."""

import sqlite3
from pathlib import Path

import pytest

from cache.errors import UserError
from tests.workbench.listening.small import NOISES, make_small, right
from workbench.listening.answers import read_answers, study_id
from workbench.listening.orders import steps_of
from workbench.listening.store import AnswerStore


def test_preferences_are_of_conditions_wherever_their_clips_stood(table: Path, tmp_path: Path) -> None:
    """One listener always prefers less noise, another is always wrong in checks and answers at once."""
    config = make_small(table, tmp_path / "study", items=2)
    store = AnswerStore(tmp_path / "study", study_id(config))
    order = list(NOISES)
    known = config.by_token
    for number in range(2):
        listener = store.add_listener(lambda number: steps_of(config, number))
        assert listener is not None
        for place, step in enumerate(listener.steps[: -1 - number]):  # the second stops before the last trial
            answers: list[int] = []
            if step.kind in ("trial", "training"):
                ranks = [order.index(known[token].condition) for token in step.stimuli]
                answers = [0 if ranks[0] > ranks[1] else 2]
            elif step.kind == "check":
                answers = [right(config, step) if number == 0 else 1 - right(config, step)]
            elif step.kind == "headphones":
                answers = [config.headphones[step.number].expected]
            store.save(number, place, answers, 60.0 if number == 0 else 0.9)
    found = read_answers(tmp_path / "study")
    for row in found.preferences.itertuples():
        assert row.preferred == float(order.index(row.first) > order.index(row.second))
    assert len(found.preferences) == 6 + 5
    assert found.listeners.to_dict("records") == [
        {
            "listener": 0,
            "excluded": "",
            "finished": True,
            "trials": 6,
            "headphones": 6,
            "checks": 2,
            "fast": 0.0,
        },
        {
            "listener": 1,
            "excluded": "",
            "finished": False,
            "trials": 5,
            "headphones": 6,
            "checks": 0,
            "fast": 1.0,
        },
    ]


def test_ratings_are_from_one_to_five(table: Path, tmp_path: Path) -> None:
    config = make_small(table, tmp_path / "study", design="ratings", items=1, any_device=True, checks=0)
    store = AnswerStore(tmp_path / "study", study_id(config))
    listener = store.add_listener(lambda number: steps_of(config, number))
    assert listener is not None
    for place, step in enumerate(listener.steps[:-1]):
        store.save(0, place, [0, 4] if step.stimuli else [], 60.0)
    ratings = read_answers(tmp_path / "study").ratings
    assert ratings.groupby("question", sort=False)["rating"].unique().map(list).to_list() == [[1.0], [5.0]]
    assert set(ratings["condition"]) == set(NOISES)


@pytest.mark.parametrize("answers", ["[7]", "[]", "[0, 1]"])
def test_answers_that_no_page_allows_are_refused(table: Path, tmp_path: Path, answers: str) -> None:
    config = make_small(table, tmp_path / "study", items=1, any_device=True, checks=0)
    store = AnswerStore(tmp_path / "study", study_id(config))
    store.add_listener(lambda number: steps_of(config, number))
    with sqlite3.connect(store.file) as database:
        database.execute("INSERT INTO answers VALUES (0, 2, ?, 1)", (answers,))
    with pytest.raises(UserError, match="do not fit"):
        read_answers(tmp_path / "study")


def test_a_study_without_answers_says_what_to_do(table: Path, tmp_path: Path) -> None:
    make_small(table, tmp_path / "study", items=1, any_device=True)
    with pytest.raises(UserError, match="listen serve"):
        read_answers(tmp_path / "study")
