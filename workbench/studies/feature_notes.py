"""Labels, notes, stars and sets of features that people write, in the study's `notes.sqlite`.

Several tabs and processes may write at once. Every write is a transaction of its own and says which revision of the
field its writer had read. If the field has changed since, the last write wins for labels and stars, the earlier label
is kept, and the writer is told of it; of notes, both are kept.

All is kept with the hash of the autoencoder's weights, and read and written of those that it has now: one that was
trained again has other features, and does not take over what was written about its predecessor of the same name.
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
from cache.wording import counted, quoted
from workbench.sae.stored import stored_weights

FILE = "notes.sqlite"
NoteField = Literal["label", "note", "star"]
FIELDS: tuple[NoteField, ...] = get_args(NoteField)
LONGEST: dict[NoteField, int] = {"label": 200, "note": 10_000, "star": 1}
"""Characters of a field's value."""
LONGEST_SET_NAME, MOST_SETS, MOST_IN_SET = 100, 200, 1000
BETWEEN_SETS = ";"
"""What names of sets cannot have, as it stands between them in lists."""
KEPT = 20
"""Earlier values of a field that are kept."""
MOST_BYTES = 2**28
_WAIT_SECONDS = 10.0
_VERSION = 2
_OF = "sae TEXT NOT NULL, weights TEXT NOT NULL, feature INTEGER NOT NULL"
_VALUE = "field TEXT NOT NULL, value TEXT NOT NULL, revision INTEGER NOT NULL, changed TEXT NOT NULL"
_TABLES = (
    f"CREATE TABLE entry ({_OF}, {_VALUE}, PRIMARY KEY (sae, weights, feature, field)) STRICT",
    f"CREATE TABLE earlier ({_OF}, {_VALUE}, PRIMARY KEY (sae, weights, feature, field, revision)) STRICT",
    f"CREATE TABLE member (name TEXT NOT NULL, {_OF}, PRIMARY KEY (name, sae, weights, feature)) STRICT",
)
_IS_OF = "sae = ? AND weights = ?"


class Entry(NamedTuple):
    """A field of a feature: its value, the number of times that it was written, and when last (UTC, ISO 8601)."""

    value: str = ""
    revision: int = 0
    changed: str = ""


class Written(NamedTuple):
    """What a write left in the field, and the value of somebody else that the writer had not read, if any."""

    entry: Entry
    unread: Entry | None = None


class Noted(NamedTuple):
    """What is written about a feature of an autoencoder with these weights: its fields, and the sets that it is in."""

    sae: str
    weights: str
    feature: int
    fields: Mapping[NoteField, str]
    sets: tuple[str, ...] = ()


class Predecessors(NamedTuple):
    """What is written about autoencoders of one name with other weights than it has now.

    About how many features, and how many of them are in each set.
    """

    features: int
    sets: dict[str, int]


class _Sae(NamedTuple):
    """An autoencoder as the tables have it."""

    name: str
    weights: str


def weights_of(study: Path, sae: str) -> str:
    """Return the hash of an autoencoder's weights that is kept with what is written; "" if it has no weights."""
    return stored_weights(study, Path("sae", sae))


def read_feature(study: Path, sae: str, feature: int) -> dict[NoteField, Entry]:
    """Return the fields of a feature; those that nobody wrote are empty.

    Raises:
        UserError: for a file that is damaged or not of a study.
    """
    asked = f"SELECT field, value, revision, changed FROM entry WHERE {_IS_OF} AND feature = ?"
    found = {field: Entry(*rest) for field, *rest in _read_of(study, sae, asked, feature)}
    return {field: found.get(field, Entry()) for field in FIELDS}


def read_earlier(study: Path, sae: str, feature: int) -> list[tuple[NoteField, Entry]]:
    """Return the earlier labels and notes of a feature that are kept, latest first."""
    asked = (
        f"SELECT field, value, revision, changed FROM earlier WHERE {_IS_OF} AND feature = ? "
        "ORDER BY changed DESC, revision DESC"
    )
    return [(field, Entry(*rest)) for field, *rest in _read_of(study, sae, asked, feature) if field in FIELDS]


def read_all(study: Path, sae: str) -> dict[int, dict[NoteField, str]]:
    """Return what was written about the features of an autoencoder: the fields that are not empty, by feature."""
    asked = f"SELECT feature, field, value FROM entry WHERE {_IS_OF} AND value != '' ORDER BY feature"
    features: dict[int, dict[NoteField, str]] = {}
    for feature, field, value in _read_of(study, sae, asked):
        features.setdefault(feature, {})[field] = value
    return features


def read_everything(study: Path) -> list[Noted]:
    """Return what is written about any feature, of autoencoders with all weights that they had, in order."""
    fields: dict[tuple[str, str, int], dict[NoteField, str]] = {}
    sets: dict[tuple[str, str, int], list[str]] = {}
    for *feature, field, value in _read(
        study, "SELECT sae, weights, feature, field, value FROM entry WHERE value != ''"
    ):
        fields.setdefault((*feature,), {})[field] = value
    for *feature, name in _read(study, "SELECT sae, weights, feature, name FROM member ORDER BY name"):
        sets.setdefault((*feature,), []).append(name)
    return [
        Noted(*feature, fields.get(feature, {}), tuple(sets.get(feature, ())))
        for feature in sorted(fields.keys() | sets.keys())
    ]


def read_predecessors(study: Path, sae: str) -> Predecessors:
    """Return what is written about autoencoders of this name with other weights."""
    if _size(study) is None:
        return Predecessors(0, {})
    others = (sae, weights_of(study, sae))
    asked = (
        "SELECT count(*) FROM (SELECT weights, feature FROM entry WHERE sae = ? AND weights != ? AND value != '' "
        "UNION SELECT weights, feature FROM member WHERE sae = ? AND weights != ?)"
    )
    ((features,),) = _read(study, asked, *others, *others)
    of_sets = "SELECT name, count(*) FROM member WHERE sae = ? AND weights != ? GROUP BY name"
    return Predecessors(features, dict(_read(study, of_sets, *others)))


def left_out_of_sets(study: Path, sae: str, sets: Iterable[str]) -> list[str]:
    """Return a sentence for each set that also has features of an earlier autoencoder of this name."""
    earlier = read_predecessors(study, sae).sets
    return [
        f"The set {each} has {counted(earlier[each], 'more feature')} of an earlier autoencoder {sae}, which had other "
        "weights; changed are only those of the present one."
        for each in sorted(earlier.keys() & set(sets))
    ]


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
    value, of = checked(field, value), _Sae(sae, weights_of(study, sae))
    with _writing(study) as file:
        return _write(file, of, feature, field, value, read)


def write_all(study: Path, features: Iterable[Noted]) -> int:
    """Write fields of many features, and add these to sets, in one transaction; return how much changed.

    Raises:
        UserError: as `write` and `change_set`; then nothing is written.
    """
    changed = 0
    with _writing(study) as file:
        for each in features:
            of = _Sae(each.sae, each.weights)
            for field, value in each.fields.items():
                old = _entry(file, of, each.feature, field)
                value = checked(field, value)
                if value != old.value:
                    _write(file, of, each.feature, field, value, None)
                    changed += 1
            for name in each.sets:
                changed += _add(file, checked_set(name), of, [each.feature])
        _check_sets(file)
    return changed


def checked(field: NoteField, value: str) -> str:
    """Return a value as it is kept, without space around it; a star of 0 is none.

    Raises:
        UserError: if it is too long or has control characters.
    """
    value = value.replace("\r\n", "\n").strip()
    if field == "star" and value not in ("", "0", "1"):
        raise UserError(f"A star is 1, or 0 for none, not {quoted(value)}.")
    if len(value) > LONGEST[field]:
        raise UserError(
            f"A {field} has at most {LONGEST[field]:,} characters; this one has {len(value):,}. Shorten it."
        )
    allowed = "\n\t" if field == "note" else ""
    if _has_control(value, allowed):
        raise UserError(
            f"A {field} cannot have control characters{' or line breaks' if not allowed else ''}. Remove them."
        )
    return "" if (field, value) == ("star", "0") else value


def checked_set(name: str) -> str:
    """Return the name of a set, without space around it.

    Raises:
        UserError: if it is empty or too long, or has control characters or semicolons.
    """
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_SET_NAME or _has_control(name) or BETWEEN_SETS in name:
        raise UserError(
            f"The name of a set has 1 to {LONGEST_SET_NAME} characters, and neither control characters nor semicolons; "
            f"got {name[:120]!r}."
        )
    return name


def _has_control(text: str, allowed: str = "") -> bool:
    return any(unicodedata.category(sign) in ("Cc", "Cs") and sign not in allowed for sign in text)


def set_names(study: Path) -> list[str]:
    """Return the names of the sets of features."""
    return [name for (name,) in _read(study, "SELECT DISTINCT name FROM member ORDER BY name")]


def read_set(study: Path, name: str, sae: str) -> list[int]:
    """Return the features of an autoencoder in a set."""
    asked = f"SELECT feature FROM member WHERE {_IS_OF} AND name = ? ORDER BY feature"
    return [feature for (feature,) in _read_of(study, sae, asked, name)]


def sets_of(study: Path, sae: str, feature: int) -> list[str]:
    """Return the names of the sets in which a feature is."""
    asked = f"SELECT name FROM member WHERE {_IS_OF} AND feature = ? ORDER BY name"
    return [name for (name,) in _read_of(study, sae, asked, feature)]


def change_set(study: Path, name: str, sae: str, add: Iterable[int] = (), remove: Iterable[int] = ()) -> None:
    """Add features of an autoencoder to a set, which is made if it is new, and remove others; an empty set is gone.

    Raises:
        UserError: for a name that cannot be one (see `checked_set`), or too many sets or features.
    """
    name, of = checked_set(name), _Sae(sae, weights_of(study, sae))
    with _writing(study) as file:
        _add(file, name, of, add)
        file.executemany(
            f"DELETE FROM member WHERE {_IS_OF} AND name = ? AND feature = ?",
            ((*of, name, each) for each in remove),
        )
        _check_sets(file)


def _add(file: sqlite3.Connection, name: str, of: _Sae, features: Iterable[int]) -> int:
    """Add features to a set; return how many were not in it."""
    rows = ((name, *of, each) for each in features)
    return file.executemany("INSERT OR IGNORE INTO member VALUES (?, ?, ?, ?)", rows).rowcount


def _check_sets(file: sqlite3.Connection) -> None:
    sizes = "SELECT name, count(*) AS size FROM member GROUP BY name, sae, weights"
    sets, members = file.execute(f"SELECT count(DISTINCT name), max(size) FROM ({sizes})").fetchone()
    if sets > MOST_SETS or (members or 0) > MOST_IN_SET:
        raise UserError(
            f"A study has at most {MOST_SETS} sets, and a set {MOST_IN_SET:,} features of an autoencoder."
        )


def _write(
    file: sqlite3.Connection, of: _Sae, feature: int, field: NoteField, value: str, read: int | None
) -> Written:
    old = _entry(file, of, feature, field)
    is_unread = read is not None and old.revision != read and old.value != value and old.value != ""
    if old.value == value:
        return Written(old)
    if is_unread and field == "note" and value:
        value = checked(field, f"{value}\n\n— Written elsewhere, {old.changed} —\n{old.value}")
    if old.value and field != "star":
        _keep(file, of, feature, field, old)
    new = Entry(value, old.revision + 1, datetime.now(UTC).isoformat(timespec="seconds"))
    file.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", (*of, feature, field, *new))
    return Written(new, old if is_unread else None)


def _keep(file: sqlite3.Connection, of: _Sae, feature: int, field: NoteField, old: Entry) -> None:
    file.execute("INSERT OR REPLACE INTO earlier VALUES (?, ?, ?, ?, ?, ?, ?)", (*of, feature, field, *old))
    file.execute(
        f"DELETE FROM earlier WHERE {_IS_OF} AND feature = ? AND field = ? AND revision <= ?",
        (*of, feature, field, old.revision - KEPT),
    )


def _entry(file: sqlite3.Connection, of: _Sae, feature: int, field: NoteField) -> Entry:
    asked = f"SELECT value, revision, changed FROM entry WHERE {_IS_OF} AND feature = ? AND field = ?"
    found = file.execute(asked, (*of, feature, field)).fetchone()
    return Entry(*found) if found else Entry()


def _read_of(study: Path, sae: str, asked: str, *values: str | int) -> list[Any]:
    """Return the rows of a query about an autoencoder; `asked` begins its conditions with `_IS_OF`."""
    return [] if _size(study) is None else _read(study, asked, sae, weights_of(study, sae), *values)


def _read(study: Path, asked: str, *values: str | int) -> list[Any]:
    """Return the rows of a query; none if nothing was written yet."""
    if _size(study) is None:
        return []
    with _opened(study, "ro") as file:
        if not _tables_of(file):  # whoever writes for the first time has made the file, and nothing in it yet
            return []
        _check(study, file)
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
    if sorted(_tables_of(file)) != sorted(_TABLES):
        raise _damaged(study)


def _tables_of(file: sqlite3.Connection) -> list[str]:
    """Return the statements that made what the file has."""
    return [sql for (sql,) in file.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]


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
