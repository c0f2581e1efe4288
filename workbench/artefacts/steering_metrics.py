"""Steering metrics published with TADA (arXiv 2602.11910): distance and scores of each method, concept and strength."""

from pathlib import Path

import numpy as np
import pandas as pd

from cache.errors import UserError
from workbench.tables import place, read_table, text_columns

LABELS = ("cell", "concept", "axis")
NUMBERS = ("alpha", "lpaps", "muqt", "clap")


def load_steering_metrics(file: Path) -> pd.DataFrame:
    """Read `steering_metrics.csv`: one row for each cell (a method at its blocks), concept, axis and strength.

    Returns:
        Columns `cell`, `concept`, `axis`, `strength` (alpha), `distance` from the unsteered clip on that axis (the file
        calls it lpaps on all axes), and the scores `muqt` and `clap`.

    Raises:
        UserError: if the file cannot be read, lacks a column, has something else than finite numbers, or the same
            strength twice.
    """
    what = f"The table of steering metrics {file}"
    table = text_columns(read_table(file), (*LABELS, *NUMBERS), what)
    if missing := [name for name in (*LABELS, *NUMBERS) if name not in table]:
        raise UserError(
            f"{what} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. Required: "
            f"{', '.join((*LABELS, *NUMBERS))}."
        )
    for name in NUMBERS:
        numbers = pd.to_numeric(table[name], errors="coerce")
        wrong = table.index[~np.isfinite(numbers)]
        if len(wrong):
            raise UserError(
                f"{what} has the {name} '{table[name][wrong[0]]}' in {place(table, wrong[0])}; it must be a number."
            )
        table[name] = numbers
    twice = table.index[table.duplicated([*LABELS, "alpha"])]
    if len(twice):
        raise UserError(f"{what} has the same strength twice, in {place(table, twice[0])}. Keep one row.")
    renamed = table.rename(columns={"alpha": "strength", "lpaps": "distance"})
    return renamed[[*LABELS, "strength", "distance", "muqt", "clap"]]
