"""Write tables as CSV that spreadsheets can open without running formulas."""

import pandas as pd

FORMULAS = ("=", "+", "-", "@", "\t")


def csv_text(frame: pd.DataFrame) -> str:
    """Return the frame as CSV.

    Text that a spreadsheet would treat as a formula, because it begins with one of `FORMULAS`, is prefixed with an
    apostrophe: names may come from untrusted studies (https://owasp.org/www-community/attacks/CSV_Injection). Numbers
    are unchanged.
    """
    return frame.map(_cell).to_csv(index=False, lineterminator="\n")


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare \r would end the row: it is not quoted
    return f"'{text}" if text.startswith(FORMULAS) else text
