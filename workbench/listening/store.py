"""The answers of listeners in SQLite: an answer is on the disk before anything else happens.

Neither names nor addresses are stored: a listener is a number and the random token of its link.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cache.errors import UserError
from cache.opening import file_size
from workbench.listening.folder import ANSWERS
from workbench.listening.orders import STEPS, Step

TOKEN_BYTES = 16
MOST_LISTENERS = 10_000
WAIT_SECONDS = 30.0
_TABLES = """
CREATE TABLE IF NOT EXISTS study (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS listeners (number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, steps TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS shown (listener INTEGER, step INTEGER, at REAL NOT NULL, PRIMARY KEY (listener, step));
CREATE TABLE IF NOT EXISTS answers (
  listener INTEGER, step INTEGER, answers TEXT NOT NULL, seconds REAL, PRIMARY KEY (listener, step)
);
CREATE TABLE IF NOT EXISTS excluded (listener INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Listener:
    """A listener: number, the token of the link, the pages in their order, and how many are answered."""

    number: int
    token: str
    steps: tuple[Step, ...]
    answered: int

    @property
    def finished(self) -> bool:
        """Whether all pages but the last, which has nothing to answer, are answered."""
        return self.answered >= len(self.steps) - 1


@dataclass(frozen=True)
class Answer:
    """A listener's answers on one page, and the seconds since the page was first shown; NaN if that is unknown."""

    listener: int
    step: int
    answers: tuple[int, ...]
    seconds: float


class AnswerStore:
    """The answers of one listening study; several processes and threads can use it at the same time."""

    def __init__(self, folder: Path, study_id: str, clock: Callable[[], float] = time.time) -> None:
        """Open the store in a study's folder, or create it.

        Raises:
            UserError: if the answers there are of another study, or damaged.
            cache.opening.UnsafeFile: if it is a link.
        """
        self.file = folder / ANSWERS
        self._clock = clock
        for ending in ("", "-wal", "-shm", "-journal"):
            file_size(folder, f"{ANSWERS}{ending}")  # raises for a link
        self.file.touch(mode=0o600)  # it has the listeners' tokens
        with self._writing() as database:
            database.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
            row = database.execute("SELECT id FROM study").fetchone()
            if row is None:
                database.execute("INSERT INTO study VALUES (?)", (study_id,))
            elif row[0] != study_id:
                raise UserError(
                    f"{self.file} has answers to another version of this study. Move it elsewhere, or restore "
                    "study.json."
                )

    def add_listener(
        self, steps: Callable[[int], Sequence[Step]], token: str = "", most: int = MOST_LISTENERS
    ) -> Listener | None:
        """Add a listener with the pages `steps(number)`, numbered from 0 on; None if there are `most` already."""
        token = token or secrets.token_urlsafe(TOKEN_BYTES)
        with self._writing() as database:
            database.execute("BEGIN IMMEDIATE")
            (number,) = database.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM listeners").fetchone()
            if number >= most:
                return None
            pages = tuple(steps(number))
            text = STEPS.dump_json(pages).decode()
            database.execute("INSERT INTO listeners VALUES (?, ?, ?)", (number, token, text))
        return Listener(number, token, pages, 0)

    def listener(self, token: str) -> Listener | None:
        """Return the listener with this token, or None."""
        with self._open() as database:
            row = database.execute(
                "SELECT number, token, steps FROM listeners WHERE token = ?", (token,)
            ).fetchone()
            return None if row is None else self._listener(database, row)

    def listeners(self) -> list[Listener]:
        """Return all listeners, by number."""
        with self._open() as database:
            rows = database.execute("SELECT number, token, steps FROM listeners ORDER BY number").fetchall()
            return [self._listener(database, row) for row in rows]

    def show(self, listener: int, step: int) -> None:
        """Remember when a page was first shown."""
        with self._writing() as database:
            database.execute("INSERT OR IGNORE INTO shown VALUES (?, ?, ?)", (listener, step, self._clock()))

    def save(self, listener: int, step: int, answers: Sequence[int], seconds: float | None = None) -> bool:
        """Store a page's answers; return whether they are new. The first ones stay.

        `seconds` are those since the page was shown, unless they are given.
        """
        with self._writing() as database:
            database.execute("BEGIN IMMEDIATE")
            if seconds is None:
                shown = database.execute(
                    "SELECT at FROM shown WHERE listener = ? AND step = ?", (listener, step)
                ).fetchone()
                seconds = None if shown is None else round(max(0.0, self._clock() - shown[0]), 2)
            found = database.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)",
                (listener, step, json.dumps(list(answers)), seconds),
            )
            return found.rowcount == 1

    def exclude(self, listener: int, reason: str) -> None:
        """Store why a listener is excluded, where that was decided before the answers came here."""
        with self._writing() as database:
            database.execute("INSERT OR REPLACE INTO excluded VALUES (?, ?)", (listener, reason))

    def excluded(self) -> dict[int, str]:
        """Return why listeners are excluded, by number, as `exclude` stored it."""
        with self._open() as database:
            rows = database.execute("SELECT listener, reason FROM excluded").fetchall()
        with self._damage():
            return {int(listener): str(reason) for listener, reason in rows}

    def answers(self) -> list[Answer]:
        """Return all answers, by listener and page."""
        with self._open() as database:
            rows = database.execute(
                "SELECT listener, step, answers, seconds FROM answers ORDER BY listener, step"
            ).fetchall()
        with self._damage():
            return [
                Answer(
                    int(listener),
                    int(step),
                    _numbers(text),
                    float("nan") if seconds is None else float(seconds),
                )
                for listener, step, text, seconds in rows
            ]

    def _listener(self, database: sqlite3.Connection, row: tuple[int, str, str]) -> Listener:
        number, token, steps = row
        # The first page without an answer; none is left out.
        (count,) = database.execute("SELECT COUNT(*) FROM answers WHERE listener = ?", (number,)).fetchone()
        with self._damage():
            return Listener(int(number), str(token), STEPS.validate_json(steps), int(count))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the database; what is written is on the disk when the block ends, and undone if it fails."""
        with self._damage():
            database = sqlite3.connect(self.file, timeout=WAIT_SECONDS, isolation_level=None)
            try:
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                yield database
            finally:
                database.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database:
            try:
                yield database
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            if database.in_transaction:
                database.execute("COMMIT")

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.file} cannot be used: {str(error).rstrip('.')}. Try again.") from error
        except (sqlite3.DatabaseError, ValidationError, ValueError, TypeError) as error:
            raise UserError(f"{self.file} is damaged. Restore it from a copy.") from error


def _numbers(text: str) -> tuple[int, ...]:
    numbers = json.loads(text)
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise ValueError("answers must be whole numbers")
    return tuple(numbers)
