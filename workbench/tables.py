"""Tables of text from files of others: CSV, TSV, JSON, JSON lines and Parquet."""

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
TABLE_ENDINGS = (*SEPARATORS, *JSON_LINES, ".json", ".parquet")


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a table by its file's ending: CSV (separated by commas, semicolons or tabs), TSV, JSON (a list of
    objects), JSON lines, or Parquet.

    Cells are as the file has them; `text_columns` makes text of them. In CSV, blanks after a separator are left out.

    Raises:
        UserError: for a file that is missing, cannot be read, has no rows, a row of another length than the header, or
            two columns of one name.
    """
    if not path.is_file():
        raise UserError(f"{no_file(path)} Give the path of a table.")
    ending = path.suffix.lower()
    if ending == ".parquet":
        table = _read_parquet(path)
    elif ending in JSON_LINES:
        lines = [line for line in text_lines(read_text(path, LARGEST_TABLE)) if line.strip()]
        objects = [parse_json(line, f"{path}, object {number}") for number, line in enumerate(lines, start=1)]
        table = _from_objects(objects, path)
    elif ending == ".json":
        table = _from_objects(parse_json(read_text(path, LARGEST_TABLE), str(path)), path)
    else:
        table = _read_csv(path, SEPARATORS.get(ending, SEPARATORS[".csv"]))
    if table.empty:
        raise UserError(f"{path} has no rows: it needs at least one below the columns' names.")
    return table


def text_columns(table: pd.DataFrame, names: Sequence[str], source: str) -> pd.DataFrame:
    """Those of the columns `names` that a table has, all cells as text, empty ones as "".

    A column is found in other capitals, too, where that leaves one.

    Raises:
        UserError: where a cell is no text, number or truth value; `source` is what it names.
    """
    found = {name: column for name in names if (column := _find_column(table, name)) is not None}
    return pd.DataFrame(
        {name: [_text(cell, column, source) for cell in table[column]] for name, column in found.items()},
        dtype=object,
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
        raise UserError(
            f"{source} has a {type(cell).__name__} in its column '{column}', where text is needed."
        )
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
                f"{path} has {described.num_rows:,} rows and {bytes_unpacked:,} bytes unpacked, and at most "
                f"{MOST_ROWS:,} rows and {LARGEST_UNPACKED:,} bytes of a table are read: give a part of it."
            )
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pyarrow's errors are among them
        raise UserError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error


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
        raise UserError(f"{path} is empty: it needs a line with the columns' names and rows below it.")
    try:
        separator = max(separators, key=lambda one: len(next(_rows(text, one, strict=False))))
        header, *rows = _rows(text, separator)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error
    names = [name.strip() for name in header]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UserError(f"{path} has the column '{twice}' twice: only one of them can be meant.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise UserError(
                f"{path} cannot be read as a table: row {number} below the header has {len(row)} cells, and the header "
                f"has {len(names)}. Put text with separators or line breaks in it in quotes."
            )
    return pd.DataFrame(rows, columns=names, dtype=object)


def _rows(text: str, separator: str, strict: bool = True) -> Iterator[list[str]]:
    """The rows that are not blank, the header first."""
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=strict)
    return (row for row in rows if any(cell.strip() for cell in row))
