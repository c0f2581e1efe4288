"""Tables of text from files of others."""

from pathlib import Path

import pandas as pd

from cache.errors import UserError


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file (by its ending), all cells as text, empty ones as "".

    Raises UserError for a file that is missing, has no rows, or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path).fillna("").astype(str)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)  # drops a byte order mark
    except pd.errors.EmptyDataError as error:
        raise UserError(
            f"{path} is empty: it needs a line with the columns' names and rows below it."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: save it as such.") from error
    except (pd.errors.ParserError, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error
    if table.empty:
        raise UserError(f"{path} has no rows: it needs at least one below the columns' names.")
    return table
