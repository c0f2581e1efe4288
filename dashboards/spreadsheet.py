"""Write tables as CSV that spreadsheets can open without running formulas."""

import pandas as pd

from workbench.spreadsheet_cells import protected


def csv_text(frame: pd.DataFrame) -> str:
    """Return the frame as CSV, with texts `protected`: names may come from untrusted studies. Numbers are unchanged."""
    return frame.map(_cell).to_csv(index=False, lineterminator="\n")


def _cell(value: object) -> object:
    return protected(value) if isinstance(value, str) else value
