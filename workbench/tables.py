"""Read tables of text from untrusted files: CSV, TSV, JSON, JSON lines and Parquet."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cache.errors import UserError
from workbench.text_files import LARGEST_TABLE, no_file, parse_json, read_text, text_lines

SEPARATORS = {".csv": ",;\t", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
LARGEST_UNPACKED = 2**30
MOST_ROWS = 10_000_000
LINE = "line"
TABLE_ENDINGS = (*SEPARATORS, *JSON_LINES, ".json", ".parquet")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table in the format of the file's ending.

    Formats are CSV (separated by commas, semicolons or tabs), TSV, JSON (a list of objects), JSON lines and Parquet.
    Cells are not converted (see `text_columns`). In CSV, spaces after a separator are skipped. Rows of JSON lines are
    indexed by their line in the file, others are counted; errors name a row with `place`.

    Raises:
        UserError: if the file is missing, cannot be read or has no rows, a row is not as long as the header, or two
            columns have the same name.
    """
    if not path.is_file():
        raise UserError(f"{no_file(path)} Give the path of a table.")
    ending = path.suffix.lower()
    if ending == ".parquet":
        table = _read_parquet(path)
    elif ending in JSON_LINES:
        table = _read_json_lines(path)
    elif ending == ".json":
        table = _from_objects(parse_json(read_text(path, LARGEST_TABLE), str(path)), path)
    else:
        table = _read_csv(path, SEPARATORS.get(ending, SEPARATORS[".csv"]))
    if table.empty:
        raise UserError(f"{path} has no rows. It must have at least one below the header.")
    return table


def place(table: pd.DataFrame, label: Any) -> str:
    """Return where a row is in the file of a table, given its label in the index: "line 4" or "row 3"."""
    return f"line {label}" if table.index.name == LINE else f"row {label + 1}"


def text_columns(table: pd.DataFrame, names: Sequence[str], source: str) -> pd.DataFrame:
    """Return the columns `names` that a table has, with all cells as text and empty ones as "".

    Case is ignored where that is unambiguous.

    Raises:
        UserError: if a cell is not text, a number or a boolean; `source` names the table in the error.
    """
    columns = {name: column for name in names if (column := _find_column(table, name)) is not None}
    return pd.DataFrame(
        {name: [_text(cell, column, source) for cell in table[column]] for name, column in columns.items()},
        dtype=object,
        index=table.index,
    )


def _find_column(table: pd.DataFrame, name: str) -> str | None:
    if name in table:
        return name
    alike = [column for column in table.columns if str(column).casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _text(cell: Any, column: str, source: str) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, dict | list | bytes) or not pd.api.types.is_scalar(cell):
        raise UserError(f"{source} must have text in its column '{column}'; got a {type(cell).__name__}.")
    return "" if pd.isna(cell) else str(cell)


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq  # slow to import

    try:
        described = pq.read_metadata(path)
        bytes_unpacked = sum(
            described.row_group(number).total_byte_size for number in range(described.num_row_groups)
        )
        if bytes_unpacked > LARGEST_UNPACKED or described.num_rows > MOST_ROWS:
            raise UserError(
                f"{path} must have at most {MOST_ROWS:,} rows and {LARGEST_UNPACKED:,} bytes uncompressed; it has "
                f"{described.num_rows:,} rows and {bytes_unpacked:,} bytes. Give a part of it."
            )
        return pd.read_parquet(path).reset_index(drop=True)
    except (ValueError, OSError) as error:  # pyarrow's errors are among them
        raise UserError(
            f"{path} cannot be read as a table: {' '.join(str(error).split()).rstrip('.')}."
        ) from error


def _read_json_lines(path: Path) -> pd.DataFrame:
    lines = enumerate(text_lines(read_text(path, LARGEST_TABLE)), start=1)
    objects = {number: parse_json(line, f"{path}, line {number},") for number, line in lines if line.strip()}
    return _from_objects(list(objects.values()), path).set_axis(pd.Index(objects, name=LINE, dtype=int))


def _from_objects(objects: Any, path: Path) -> pd.DataFrame:
    if not isinstance(objects, list) or not all(isinstance(row, dict) for row in objects):
        raise UserError(
            f'{path} cannot be read as a table: each row must be an object, such as {{"caption": …}}.'
        )
    columns = list(dict.fromkeys(name for row in objects for name in row))
    rows = [[row.get(name) for name in columns] for row in objects]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _read_csv(path: Path, separators: str) -> pd.DataFrame:
    text = read_text(path, LARGEST_TABLE)
    if not text.strip():
        raise UserError(f"{path} is empty. It must have a header and at least one row.")
    try:
        separator = max(separators, key=lambda one: len(next(_rows(text, one, strict=False))))
        header, *rows = _rows(text, separator)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error
    names = [name.strip() for name in header]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UserError(f"{path} has the column '{twice}' twice. Remove or rename one of them.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise UserError(
                f"{path} cannot be read as a table: row {number} below the header has {len(row)} cells, but the header "
                f"has {len(names)}. Put text that contains separators or line breaks in quotes."
            )
    return pd.DataFrame(rows, columns=names, dtype=object)


def _rows(text: str, separator: str, strict: bool = True) -> Iterator[list[str]]:
    """Yield the rows that are not blank, including the header."""
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=strict)
    return (row for row in rows if any(cell.strip() for cell in row))
