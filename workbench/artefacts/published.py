"""Tables of block impacts that a paper published: one row a model, concept and block."""

from pathlib import Path

import pandas as pd

from cache.errors import UserError
from workbench.tables import read_table, text_columns

COLUMNS = ("model", "concept", "block", "impact")
SETTINGS = ("metric", "attn")  # further columns, which tell rows of one block apart


def load_published(file: Path) -> pd.DataFrame:
    """The table as (model, metric, concept, block, attn, impact), blocks named as here ("tf7").

    `metric` and `attn` are "" where the file has no such column. Raises UserError when the file cannot be read, lacks
    a column, or has impacts that are no numbers.
    """
    table = text_columns(read_table(file), (*COLUMNS, *SETTINGS), f"The published table {file}")
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UserError(
            f"The published table {file} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}: "
            f"it needs {', '.join(COLUMNS)}, and may have {' and '.join(SETTINGS)}."
        )
    for name in SETTINGS:
        if name not in table:
            table[name] = ""
    impact = pd.to_numeric(table["impact"], errors="coerce")
    wrong = table.index[impact.isna() & (table["impact"] != "")]
    if len(wrong):
        raise UserError(
            f"The published table {file} has the impact '{table['impact'][wrong[0]]}' in line {wrong[0] + 2}: "
            "impacts are numbers, or empty."
        )
    return table.assign(impact=impact)[["model", "metric", "concept", "block", "attn", "impact"]]


def published_models(table: pd.DataFrame) -> list[str]:
    """The models of a published table, in its order."""
    return list(dict.fromkeys(table["model"]))


def published_impacts(table: pd.DataFrame, model: str = "") -> pd.DataFrame:
    """One model's impacts: concept, block, impact, a row each. `model` may be left out where there is one only.

    Where `attn` numbers several attentions of one block, each is a block of its own: `up1tf5attn0`, `up1tf5attn1`.
    Raises UserError for an unknown model, and where metrics or kinds of attention give a block several values.
    """
    known = published_models(table)
    if model not in known and (model or len(known) != 1):
        told = f"has no model '{model}'" if model else "has several models"
        raise UserError(
            f"The published table {told}: choose one of {', '.join(known) or 'none (it is empty)'}."
        )
    rows = table[table["model"] == (model or known[0])]
    several = rows.groupby(["concept", "block"])["attn"].transform("nunique") > 1
    numbered = several & rows["attn"].str.fullmatch(r"\d+")
    rows = rows.assign(block=rows["block"].where(~numbered, rows["block"] + "attn" + rows["attn"]))
    twice = rows[rows.duplicated(["concept", "block"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        raise UserError(
            f"The published table has several impacts of {first['block']} on {first['concept']} for {first['model']}: "
            f"keep the rows of one {' and one '.join(SETTINGS)}."
        )
    return rows[["concept", "block", "impact"]].reset_index(drop=True)
