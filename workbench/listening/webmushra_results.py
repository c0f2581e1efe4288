"""Result files of webMUSHRA (CSV): read as answers to a listening study, and written from them.

What its questionnaire asks listeners, such as their age and address, is used to tell sessions apart, and not stored.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache.errors import UserError
from workbench.listening.config import ListeningConfig, Trial
from workbench.listening.forms import BEST, preferred
from workbench.listening.making import ANCHOR, HIDDEN
from workbench.listening.orders import Step
from workbench.listening.request import Design
from workbench.listening.store import Answer, AnswerStore
from workbench.listening.webmushra import ANCHOR_35, REFERENCE, Imported, Page, page_id
from workbench.listening.webmushra_sessions import LISTENER, SESSION, sessions_of
from workbench.tables import read_table, text_columns
from workbench.validation import name_problem

FILES: dict[Design, str] = {"mushra": "mushra.csv", "pairs": "paired_comparison.csv", "ratings": "lss.csv"}
_OWN: dict[Design, tuple[str, ...]] = {
    "mushra": ("trial_id", "rating_stimulus", "rating_score", "rating_time", "rating_comment"),
    "pairs": (
        "trial_id",
        "choice_reference",
        "choice_non_reference",
        "choice_answer",
        "choice_time",
        "choice_comment",
    ),
    "ratings": ("trial_id", "stimuli", "rating_time"),
}
_ANSWERED: dict[Design, str] = {
    "mushra": "rating_stimulus",
    "pairs": "choice_non_reference",
    "ratings": "stimuli",
}
"""The column that tells, with the page, what a row answers."""
_CORRECT, _INCORRECT, _UNDECIDED = "correct", "incorrect", "undecided"
_CHOICES = (_CORRECT, _UNDECIDED, _INCORRECT)
_SKIPPED = ("unknown", "NA", "")
EXCLUDED = "excluded"
"""A column of exported files: why a listener is excluded, or "". webMUSHRA has none of what this is decided from."""


def import_results(path: Path, imported: Imported, config: ListeningConfig, store: AnswerStore) -> int:
    """Add the listeners of a result file to a listening study, and return their number.

    Raises:
        UserError: if the file does not fit the configuration; then nobody is added.
    """
    table = read_table(path)
    columns = [*_OWN[imported.design], *_rating_columns(imported)]
    rows = text_columns(table, [*columns, EXCLUDED], str(path))
    required = [name for name in columns if not name.endswith("_comment")]
    if missing := [name for name in required if name not in rows]:
        raise UserError(f"{path} must have the column '{missing[0]}', as webMUSHRA writes it.")
    answered = list(zip(rows["trial_id"], rows[_ANSWERED[imported.design]], strict=True))
    asked = [str(name) for name in table.columns if str(name) not in rows]
    sessions = [rows.loc[labels].to_dict("records") for labels in sessions_of(path, table, answered, asked)]
    listeners = [(_pages(path, imported, config, session), _excluded(path, session)) for session in sessions]
    for pages, reason in listeners:
        steps = (*(step for step, _, _ in pages), Step(kind="end"))
        listener = store.add_listener(partial(_same, steps))
        if listener is None:
            raise UserError(f"{path} has more listeners than a listening study can have.")
        for place, (_, numbers, seconds) in enumerate(pages):
            store.save(listener.number, place, numbers, seconds)
        if reason:
            store.exclude(listener.number, reason)
    return len(listeners)


def results_csv(config: ListeningConfig, store: AnswerStore, name: str, excluded: Mapping[int, str]) -> str:
    """Return the answers to a study's trials as webMUSHRA's result file; listeners are numbers.

    `excluded` has the reasons why listeners are excluded; their answers are written, too, and marked by it.
    """
    listeners = {listener.number: listener for listener in store.listeners()}
    n = len(config.questions)
    ratings = ["stimuli_rating"] if n == 1 else [f"stimuli_rating{place + 1}" for place in range(n)]
    own = list(_OWN[config.design])
    if config.design == "ratings":
        own = [own[0], *ratings, *own[1:]]
    session = [SESSION] if config.design == "mushra" else []
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, ["session_test_id", LISTENER, EXCLUDED, *session, *own], lineterminator="\n"
    )
    writer.writeheader()
    for answer in store.answers():
        step = listeners[answer.listener].steps[answer.step]
        if step.kind != "trial":
            continue
        for row in _result_rows(config, step, answer, ratings):
            reason = excluded.get(answer.listener, "")
            first = {"session_test_id": name, LISTENER: answer.listener, EXCLUDED: reason}
            of_session = {SESSION: f"listener-{answer.listener}"} if session else {}
            writer.writerow(
                {**first, **of_session, "trial_id": page_id(config, config.trials[step.number]), **row}
            )
    return text.getvalue()


def _same(steps: tuple[Step, ...], number: int) -> tuple[Step, ...]:  # noqa: ARG001 - the order was webMUSHRA's
    return steps


def _result_rows(
    config: ListeningConfig, step: Step, answer: Answer, ratings: list[str]
) -> Iterator[dict[str, Any]]:
    known, trial = config.by_token, config.trials[step.number]
    milliseconds = "" if math.isnan(answer.seconds) else round(1000 * answer.seconds)
    if config.design == "pairs":
        first, second = trial.stimuli
        chosen = preferred(config, step, answer.answers[0])
        yield {
            "choice_reference": REFERENCE,
            "choice_non_reference": known[second].condition,
            "choice_answer": {first: _CORRECT, second: _INCORRECT, "": _UNDECIDED}[chosen],
            "choice_time": milliseconds,
        }
    elif config.design == "ratings":
        points = {name: number + 1 for name, number in zip(ratings, answer.answers, strict=True)}
        yield {**points, "stimuli": known[step.stimuli[0]].condition, "rating_time": milliseconds}
    else:
        named = {HIDDEN: REFERENCE, ANCHOR: ANCHOR_35}
        for token, rating in zip(step.stimuli, answer.answers, strict=True):
            condition = known[token].condition
            yield {
                "rating_stimulus": named.get(condition, condition),
                "rating_score": rating,
                "rating_time": milliseconds,
            }


def _rating_columns(imported: Imported) -> list[str]:
    n = len(imported.pages[0].scales)
    return ["stimuli_rating"] if n == 1 else [f"stimuli_rating{place + 1}" for place in range(n)]


def _excluded(path: Path, session: Sequence[Mapping[str, str]]) -> str:
    """Return why the listener of a session is excluded, or ""."""
    reason, *others = dict.fromkeys(row.get(EXCLUDED, "") for row in session)
    if others or (problem := name_problem(reason)):
        told = "has several cells for one listener" if others else problem
        raise UserError(
            f"{path}: the column '{EXCLUDED}' {told}. Give the same reason in all of a listener's rows."
        )
    return reason


def _pages(
    path: Path, imported: Imported, config: ListeningConfig, rows: list[dict[str, str]]
) -> list[tuple[Step, list[int], float | None]]:
    """Return the pages of one session: step, answers, and seconds."""
    pages = {page.id: page for page in imported.pages}
    if unknown := next((row["trial_id"] for row in rows if row["trial_id"] not in pages), None):
        raise UserError(f"{path} has answers to the page '{unknown}', which the configuration does not have.")
    if imported.design == "mushra":
        by_page: dict[str, list[dict[str, str]]] = {}
        for row in rows:
            by_page.setdefault(row["trial_id"], []).append(row)
        return [_mushra_page(path, config, pages[name], of_page) for name, of_page in by_page.items()]
    read = _pair_page if imported.design == "pairs" else _rating_page
    return [found for row in rows if (found := read(path, config, pages[row["trial_id"]], row)) is not None]


def _mushra_page(
    path: Path, config: ListeningConfig, page: Page, rows: list[dict[str, str]]
) -> tuple[Step, list[int], float | None]:
    number, trial = _trial(config, page.item, None)
    named = {REFERENCE: HIDDEN, ANCHOR_35: ANCHOR}
    tokens = {config.by_token[token].condition: token for token in trial.stimuli}
    scores = {named.get(row["rating_stimulus"], row["rating_stimulus"]): row["rating_score"] for row in rows}
    if set(scores) != set(tokens):
        raise UserError(
            f"{path} does not have exactly the stimuli of the page '{page.id}' for every listener."
        )
    step = Step(kind="trial", number=number, stimuli=tuple(tokens[name] for name in scores))
    return step, [_score(path, score) for score in scores.values()], _seconds(rows[0].get("rating_time", ""))


def _pair_page(
    path: Path, config: ListeningConfig, page: Page, row: Mapping[str, str]
) -> tuple[Step, list[int], float | None] | None:
    answer = row["choice_answer"]
    if answer in _SKIPPED:
        return None
    if answer not in _CHOICES or (answer == _UNDECIDED and not config.ties):
        raise UserError(f"{path} has the answer '{answer}'; answers are {', '.join(_CHOICES)} or unknown.")
    number, trial = _trial(config, page.item, (page.reference_condition, row["choice_non_reference"]))
    places = _CHOICES if config.ties else (_CORRECT, _INCORRECT)
    step = Step(kind="trial", number=number, stimuli=trial.stimuli)
    return step, [places.index(answer)], _seconds(row.get("choice_time", ""))


def _rating_page(
    path: Path, config: ListeningConfig, page: Page, row: Mapping[str, str]
) -> tuple[Step, list[int], float | None] | None:
    names = (
        ["stimuli_rating"]
        if len(page.scales) == 1
        else [f"stimuli_rating{place + 1}" for place in range(len(page.scales))]
    )
    given = [row[name] for name in names]
    if any(value in _SKIPPED for value in given):
        return None
    for value, scale in zip(given, page.scales, strict=True):
        if value not in scale:
            raise UserError(f"{path} has the rating '{value}'; ratings are {', '.join(scale)} or NA.")
    number, trial = _trial(config, page.item, (row["stimuli"],))
    numbers = [scale.index(value) for value, scale in zip(given, page.scales, strict=True)]
    return (
        Step(kind="trial", number=number, stimuli=trial.stimuli),
        numbers,
        _seconds(row.get("rating_time", "")),
    )


def _trial(config: ListeningConfig, item: str, conditions: tuple[str, ...] | None) -> tuple[int, Trial]:
    """Return the trial of an item with these conditions; with any, if they are None."""
    known = config.by_token
    for number, trial in enumerate(config.trials):
        if trial.kind == "trial" and trial.item == item:
            named = tuple(known[token].condition for token in trial.stimuli)
            if conditions is None or named == conditions:
                return number, trial
    raise UserError(f"The configuration has no stimulus '{(conditions or ('',))[-1]}' of '{item}'.")


def _score(path: Path, text: str) -> int:
    try:
        score = round(float(text))
    except (ValueError, OverflowError):
        score = -1
    if not 0 <= score <= BEST:
        raise UserError(f"{path} has the score '{text}'; scores are from 0 to {BEST}.")
    return score


def _seconds(text: str) -> float | None:
    """Return seconds from milliseconds; None if they are unknown."""
    try:
        seconds = float(text) / 1000
    except ValueError:
        return None
    return round(seconds, 2) if math.isfinite(seconds) and seconds >= 0 else None
