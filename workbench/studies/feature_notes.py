"""Labels, notes, stars and sets of features that people write, in the study's `notes.sqlite`.

Several tabs and processes may write at once. Every write is a transaction of its own and says which revision of the
field its writer had read. If the field has changed since, the last write wins for labels and stars, the earlier label
is kept, and the writer is told of it; of notes, both are kept.
"""

import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from cache.errors import UserError
from cache.opening import UnsafeFile, file_size

FILE = "notes.sqlite"
NoteField = Literal["label", "note", "star"]
FIELDS: tuple[NoteField, ...] = get_args(NoteField)
LONGEST: dict[NoteField, int] = {"label": 200, "note": 10_000, "star": 1}
"""Characters of a field's value."""
LONGEST_SET_NAME, MOST_SETS, MOST_IN_SET = 100, 200, 1000
KEPT = 20
"""Earlier values of a field that are kept."""
MOST_BYTES = 2**28
_WAIT_SECONDS = 10.0
_VERSION = 1
_TABLES = (
    "CREATE TABLE entry (sae TEXT NOT NULL, feature INTEGER NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, "
    "revision INTEGER NOT NULL, changed TEXT NOT NULL, PRIMARY KEY (sae, feature, field)) STRICT",
    "CREATE TABLE earlier (sae TEXT NOT NULL, feature INTEGER NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, "
    "revision INTEGER NOT NULL, changed TEXT NOT NULL, PRIMARY KEY (sae, feature, field, revision)) STRICT",
    "CREATE TABLE member (name TEXT NOT NULL, sae TEXT NOT NULL, feature INTEGER NOT NULL, "
    "PRIMARY KEY (name, sae, feature)) STRICT",
)


class Entry(NamedTuple):
    """A field of a feature: its value, the number of times that it was written, and when last (UTC, ISO 8601)."""

    value: str = ""
    revision: int = 0
    changed: str = ""


class Written(NamedTuple):
    """What a write left in the field, and the value of somebody else that the writer had not read, if any."""

    entry: Entry
    unread: Entry | None = None


def read_feature(study: Path, sae: str, feature: int) -> dict[NoteField, Entry]:
    """Return the fields of a feature; those that nobody wrote are empty.

    Raises:
        UserError: for a file that is damaged or not of a study.
    """
    asked = "SELECT field, value, revision, changed FROM entry WHERE sae = ? AND feature = ?"
    found = {field: Entry(*rest) for field, *rest in _read(study, asked, sae, feature)}
    return {field: found.get(field, Entry()) for field in FIELDS}


def read_earlier(study: Path, sae: str, feature: int) -> list[tuple[NoteField, Entry]]:
    """Return the earlier labels and notes of a feature that are kept, latest first."""
    asked = (
        "SELECT field, value, revision, changed FROM earlier WHERE sae = ? AND feature = ? "
        "ORDER BY changed DESC, revision DESC"
    )
    return [(field, Entry(*rest)) for field, *rest in _read(study, asked, sae, feature) if field in FIELDS]


def read_all(study: Path, sae: str) -> dict[int, dict[NoteField, str]]:
    """Return what was written about the features of an autoencoder: the fields that are not empty, by feature."""
    asked = "SELECT feature, field, value FROM entry WHERE sae = ? AND value != '' ORDER BY feature"
    features: dict[int, dict[NoteField, str]] = {}
    for feature, field, value in _read(study, asked, sae):
        features.setdefault(feature, {})[field] = value
    return features


def noted_saes(study: Path) -> list[str]:
    """Return the names of the autoencoders of whose features something is written."""
    return [name for (name,) in _read(study, "SELECT DISTINCT sae FROM entry WHERE value != '' ORDER BY sae")]


def write(
    study: Path, sae: str, feature: int, field: NoteField, value: str, read: int | None = None
) -> Written:
    """Write a field of a feature.

    Args:
        study: the study folder.
        sae: name of the autoencoder.
        feature: number of the feature.
        field: the field.
        value: its new value; "" empties it.
        read: the revision that the writer had read; None if any may be replaced.

    Raises:
        UserError: if the value is too long or has control characters, or the file cannot be written.
    """
    value = checked(field, value)
    with _writing(study) as file:
        return _write(file, sae, feature, field, value, read)


def write_all(study: Path, values: Iterable[tuple[str, int, Mapping[NoteField, str]]]) -> int:
    """Write fields of many features (autoencoder, feature, values) in one transaction; return how many fields changed.

    Raises:
        UserError: as `write`; then nothing is written.
    """
    changed = 0
    with _writing(study) as file:
        for sae, feature, fields in values:
            for field, value in fields.items():
                old = _entry(file, sae, feature, field)
                value = checked(field, value)
                if value != old.value:
                    _write(file, sae, feature, field, value, None)
                    changed += 1
    return changed


def checked(field: NoteField, value: str) -> str:
    """Return a value as it is kept, without space around it.

    Raises:
        UserError: if it is too long or has control characters.
    """
    value = value.replace("\r\n", "\n").strip()
    if len(value) > LONGEST[field]:
        raise UserError(f"A {field} has at most {LONGEST[field]:,} characters; this one has {len(value):,}.")
    allowed = "\n\t" if field == "note" else ""
    if any(unicodedata.category(sign) in ("Cc", "Cs") and sign not in allowed for sign in value):
        raise UserError(
            f"A {field} cannot have control characters{' or line breaks' if not allowed else ''}."
        )
    if field == "star" and value not in ("", "1"):
        raise UserError(f"A star is 1 or nothing, not '{value}'.")
    return value


def set_names(study: Path) -> list[str]:
    """Return the names of the sets of features."""
    return [name for (name,) in _read(study, "SELECT DISTINCT name FROM member ORDER BY name")]


def read_set(study: Path, name: str, sae: str) -> list[int]:
    """Return the features of an autoencoder in a set."""
    asked = "SELECT feature FROM member WHERE name = ? AND sae = ? ORDER BY feature"
    return [feature for (feature,) in _read(study, asked, name, sae)]


def sets_of(study: Path, sae: str, feature: int) -> list[str]:
    """Return the names of the sets in which a feature is."""
    asked = "SELECT name FROM member WHERE sae = ? AND feature = ? ORDER BY name"
    return [name for (name,) in _read(study, asked, sae, feature)]


def change_set(study: Path, name: str, sae: str, add: Iterable[int] = (), remove: Iterable[int] = ()) -> None:
    """Add features of an autoencoder to a set, which is made if it is new, and remove others; an empty set is gone.

    Raises:
        UserError: for a name that is empty, too long or has control characters, or too many sets or features.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_SET_NAME or any(unicodedata.category(s) in ("Cc", "Cs") for s in name):
        raise UserError(
            f"The name of a set has 1 to {LONGEST_SET_NAME} characters and no control characters; got {name[:120]!r}."
        )
    with _writing(study) as file:
        file.executemany("INSERT OR IGNORE INTO member VALUES (?, ?, ?)", ((name, sae, each) for each in add))
        file.executemany(
            "DELETE FROM member WHERE name = ? AND sae = ? AND feature = ?",
            ((name, sae, each) for each in remove),
        )
        asked = "SELECT count(DISTINCT name), sum(name = ? AND sae = ?) FROM member"
        sets, members = file.execute(asked, (name, sae)).fetchone()
        if sets > MOST_SETS or (members or 0) > MOST_IN_SET:
            raise UserError(
                f"A study has at most {MOST_SETS} sets, and a set {MOST_IN_SET:,} features of an autoencoder."
            )


def _write(
    file: sqlite3.Connection, sae: str, feature: int, field: NoteField, value: str, read: int | None
) -> Written:
    old = _entry(file, sae, feature, field)
    is_unread = read is not None and old.revision != read and old.value != value and old.value != ""
    if old.value == value:
        return Written(old)
    if is_unread and field == "note" and value:
        value = checked(field, f"{value}\n\n— Written elsewhere, {old.changed} —\n{old.value}")
    if old.value and field != "star":
        _keep(file, sae, feature, field, old)
    new = Entry(value, old.revision + 1, datetime.now(UTC).isoformat(timespec="seconds"))
    file.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)", (sae, feature, field, *new))
    return Written(new, old if is_unread else None)


def _keep(file: sqlite3.Connection, sae: str, feature: int, field: NoteField, old: Entry) -> None:
    file.execute("INSERT OR REPLACE INTO earlier VALUES (?, ?, ?, ?, ?, ?)", (sae, feature, field, *old))
    file.execute(
        "DELETE FROM earlier WHERE sae = ? AND feature = ? AND field = ? AND revision <= ?",
        (sae, feature, field, old.revision - KEPT),
    )


def _entry(file: sqlite3.Connection, sae: str, feature: int, field: NoteField) -> Entry:
    asked = "SELECT value, revision, changed FROM entry WHERE sae = ? AND feature = ? AND field = ?"
    found = file.execute(asked, (sae, feature, field)).fetchone()
    return Entry(*found) if found else Entry()


def _read(study: Path, asked: str, *values: str | int) -> list[Any]:
    """Return the rows of a query; none if nothing was written yet."""
    if _size(study) is None:
        return []
    with _opened(study, "ro") as file:
        return file.execute(asked, values).fetchall()


@contextmanager
def _writing(study: Path) -> Iterator[sqlite3.Connection]:
    """Open the file for one transaction, which waits for those of others and is undone if the block fails."""
    _size(study)
    with _opened(study, "rwc") as file:
        file.execute("BEGIN IMMEDIATE")
        try:
            if file.execute("PRAGMA user_version").fetchone() == (0,):
                for table in _TABLES:
                    file.execute(table)
                file.execute(f"PRAGMA user_version = {_VERSION}")
            _check(study, file)
            yield file
        except BaseException:
            file.execute("ROLLBACK")
            raise
        file.execute("COMMIT")


@contextmanager
def _opened(study: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open the file; errors of SQLite become sentences."""
    address = f"{(study / FILE).resolve().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)) as file:
            file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * max(LONGEST.values()) + 1000)
            file.execute("PRAGMA trusted_schema = OFF")
            if mode == "ro":
                _check(study, file)
            yield file
    except sqlite3.OperationalError as error:
        raise UserError(
            f"{study / FILE} cannot be used ({error}). Check its permissions and that no other program holds it, and "
            "try again."
        ) from error
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        raise _damaged(study) from error


def _check(study: Path, file: sqlite3.Connection) -> None:
    """Raise UserError unless the file has these tables and nothing else, such as a trigger."""
    made = file.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    if sorted(sql for (sql,) in made) != sorted(_TABLES):
        raise _damaged(study)


def _size(study: Path) -> int | None:
    """Return the size of the file, or None without one; raise UnsafeFile for one that is not safe to open."""
    file_size(study, f"{FILE}-journal")  # refuses a link, which SQLite would follow
    size = file_size(study, FILE)
    if size is not None and size > MOST_BYTES:
        raise UnsafeFile(f"{study / FILE} is larger than {MOST_BYTES // 2**20} MiB. Move it away.")
    return size


def _damaged(study: Path) -> UserError:
    return UserError(
        f"{study / FILE} is damaged or is not the notes of a study. Move it away to write new ones."
    )
