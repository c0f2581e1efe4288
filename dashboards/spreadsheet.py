"""A table of numbers as CSV that spreadsheets open without running anything."""

import pandas as pd

FORMULAS = ("=", "+", "-", "@", "\t")


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV.

    A text that spreadsheets would take for a formula, since it begins with one of `FORMULAS`, has an apostrophe before
    it: names come from anybody's studies (https://owasp.org/www-community/attacks/CSV_Injection). Numbers are as they
    are.
    """
    return frame.map(_cell).to_csv(index=False, lineterminator="\n")


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare \r would end the row: it is not quoted
    return f"'{text}" if text.startswith(FORMULAS) else text
