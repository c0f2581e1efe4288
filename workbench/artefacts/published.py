"""Block impacts published with a paper: a table with one row per model, concept and block."""

from pathlib import Path

import pandas as pd

from cache.errors import UserError
from workbench.tables import place, read_table, text_columns

COLUMNS = ("model", "concept", "block", "impact")
SETTINGS = ("metric", "attn")  # optional columns that distinguish rows of the same block


def load_published(file: Path) -> pd.DataFrame:
    """Read a table with the columns model, metric, concept, block ("tf7"), attn and impact.

    `metric` and `attn` are "" where the file does not have the column.

    Raises:
        UserError: if the file cannot be read, lacks a required column, or has an impact that is not a number.
    """
    table = text_columns(read_table(file), (*COLUMNS, *SETTINGS), f"The published table {file}")
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UserError(
            f"The published table {file} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
            f"Required: {', '.join(COLUMNS)}; optional: {', '.join(SETTINGS)}."
        )
    for name in SETTINGS:
        if name not in table:
            table[name] = ""
    impact = pd.to_numeric(table["impact"], errors="coerce")
    wrong = table.index[impact.isna() & (table["impact"] != "")]
    if len(wrong):
        raise UserError(
            f"The published table {file} has the impact '{table['impact'][wrong[0]]}' in {place(table, wrong[0])}; "
            "impacts must be numbers or empty."
        )
    return table.assign(impact=impact)[["model", "metric", "concept", "block", "attn", "impact"]]


def published_models(table: pd.DataFrame) -> list[str]:
    """Return the models of a published table, in order of appearance."""
    return list(dict.fromkeys(table["model"]))


def published_impacts(table: pd.DataFrame, model: str = "") -> pd.DataFrame:
    """Return the impacts of one model as rows of (concept, block, impact).

    `model` may be empty if the table has only one. If `attn` numbers several attention layers of a block, each counts
    as a separate block: `up1tf5attn0`, `up1tf5attn1`.

    Raises:
        UserError: if the model is unknown, or a block has several impacts (different metrics or kinds of attention).
    """
    known = published_models(table)
    if model not in known and (model or len(known) != 1):
        problem = f"has no model '{model}'" if model else "has several models"
        raise UserError(
            f"The published table {problem}. Choose one of {', '.join(known) or 'none (it is empty)'}."
        )
    rows = table[table["model"] == (model or known[0])]
    several = rows.groupby(["concept", "block"])["attn"].transform("nunique") > 1
    numbered = several & rows["attn"].str.fullmatch(r"\d+")
    rows = rows.assign(block=rows["block"].where(~numbered, rows["block"] + "attn" + rows["attn"]))
    twice = rows[rows.duplicated(["concept", "block"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        raise UserError(
            f"The published table has several impacts of {first['block']} on {first['concept']} for {first['model']}. "
            f"Keep only the rows of one {' and one '.join(SETTINGS)}."
        )
    return rows[["concept", "block", "impact"]].reset_index(drop=True)
