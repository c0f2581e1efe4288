"""Which rows of webMUSHRA's result files are of the same session, whatever the order of the rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cache.errors import UserError
from workbench.tables import place, text_columns
from workbench.validation import name_problem

SESSION = "session_uuid"
LISTENER = "listener"

Answered = tuple[str, str]
"""What a row answers: a page, and a stimulus on it."""
Session = dict[Answered, Any]
"""The label of the row that gives each answer."""


def sessions_of(
    path: Path, table: pd.DataFrame, answered: Sequence[Answered], asked: Sequence[str]
) -> list[list[Any]]:
    """Return the labels of each session's rows, in the order of their first ones.

    Rows are of one session if they have the same cells in the columns `SESSION` and `LISTENER`, as far as there are
    any. Otherwise the columns `asked`, of a questionnaire, must do; where the same is answered again, another session
    begins, as webMUSHRA writes one after the other.

    Raises:
        UserError: if something is answered twice, or sessions cannot be told apart; `path` names the file.
    """
    naming = text_columns(table, (SESSION, LISTENER), str(path))
    if len(naming.columns):
        sessions = _named(path, table, naming, answered)
    else:
        sessions = _unnamed(path, text_columns(table, asked, str(path)), answered)
    return [list(session.values()) for session in sessions]


def _named(
    path: Path, table: pd.DataFrame, naming: pd.DataFrame, answered: Sequence[Answered]
) -> list[Session]:
    sessions: dict[tuple[str, ...], Session] = {}
    for (label, cells), (page, stimulus) in zip(_rows(naming), answered, strict=True):
        for column, cell in zip(naming.columns, cells, strict=True):
            if problem := name_problem(cell) or ("" if cell.strip() else "must not be empty"):
                raise UserError(f"{path}, {place(table, label)}: {column} {problem}.")
        session = sessions.setdefault(cells, {})
        if (page, stimulus) in session:
            raise UserError(
                f"{path}, {place(table, label)}: the {naming.columns[-1]} '{cells[-1]}' answers '{stimulus}' of the "
                f"page '{page}' again, after {place(table, session[page, stimulus])}. Remove one of the rows."
            )
        session[page, stimulus] = label
    return list(sessions.values())


def _unnamed(path: Path, asked: pd.DataFrame, answered: Sequence[Answered]) -> list[Session]:
    sessions: list[Session] = []
    latest: dict[tuple[str, ...], Session] = {}
    for (label, cells), answer in zip(_rows(asked), answered, strict=True):
        if answer in latest.get(cells, {answer: label}):
            latest[cells] = {}
            sessions.append(latest[cells])
        latest[cells][answer] = label
    # Sessions that follow each other have the same pages, unless the rows were sorted or some are missing.
    if len(sessions) > len(latest) and len({frozenset(session) for session in sessions}) > 1:
        raise UserError(
            f"{path} does not tell which rows are of the same listener. Add a column '{LISTENER}' with a number for "
            "each."
        )
    return sessions


def _rows(columns: pd.DataFrame) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield the label and the cells of each row, also if there are no columns."""
    for label, cells in zip(columns.index, columns.to_numpy(dtype=object).tolist(), strict=True):
        yield label, tuple(cells)
