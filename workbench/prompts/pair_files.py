"""Files of counterfactual pairs: CSV with the columns of the paper's data set and some more, or a data set on the hub.

Columns: `original_feature`, `clean_prompt`, `corrupted_prompt`; and, if they differ from the attribute set's,
`concept`, `counterfactual_feature` and `scorer_text`.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cache.errors import UserError
from workbench.files import replacing
from workbench.hub import is_hub_id
from workbench.prompts.attributes import AttributeSet, load_attributes
from workbench.prompts.prompt_sets import Pair, Prompt
from workbench.tables import place, read_table, text_columns
from workbench.validation import name_problem

COLUMNS = ("original_feature", "clean_prompt", "corrupted_prompt")
MORE_COLUMNS = ("concept", "counterfactual_feature", "scorer_text")


def save_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as CSV, the paper's columns first. Labels of other concepts are not written."""
    rows = [
        (pair.clean_value, pair.clean.text, pair.corrupt.text, pair.concept, pair.corrupt_value, pair.text)
        for pair in pairs
    ]
    with replacing(path) as partial:
        pd.DataFrame(rows, columns=[*COLUMNS, *MORE_COLUMNS]).to_csv(
            partial,
            index=False,
            quoting=csv.QUOTE_ALL,  # otherwise a lone carriage return would end a row
        )


def load_pairs(path: Path, attributes: AttributeSet | None = None) -> dict[str, list[Pair]]:
    """Load the pairs of a table (see `read_table`) by concept.

    Missing columns are filled in from `attributes` (default: the built-in ones).

    Raises:
        UserError: if the file is missing or unreadable, lacks a column, or has an invalid row (see `row_problems`).
    """
    table = complete(read_table(path), str(path), attributes)
    check_rows(table, str(path), attributes)
    by_concept: dict[str, list[Pair]] = {}
    for pair in pairs_of(table):
        by_concept.setdefault(pair.concept, []).append(pair)
    return by_concept


def complete(table: pd.DataFrame, source: str, attributes: AttributeSet | None = None) -> pd.DataFrame:
    """Fill in missing columns from `attributes` ("" for unknown attributes); `source` names the table in errors.

    Raises:
        UserError: if a required column is missing, or the table has no rows.
    """
    has_rows = not table.empty
    table = text_columns(table, (*COLUMNS, *MORE_COLUMNS), source)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(
            f"{source} has no column '{missing[0]}'. A file of pairs must have {', '.join(COLUMNS)}."
        )
    if not has_rows:
        raise UserError(f"{source} has no pairs. It must have at least one row.")
    known = (attributes or load_attributes()).root
    defaults = {
        "concept": {name: name for name in table["original_feature"]},
        "counterfactual_feature": {name: attribute.counterfactual for name, attribute in known.items()},
        "scorer_text": {name: attribute.text for name, attribute in known.items()},
    }
    for column, default in defaults.items():
        given = table[column] if column in table else pd.Series("", index=table.index)
        table[column] = given.where(given != "", table["original_feature"].map(default).fillna(""))
    return table


def row_problems(table: pd.DataFrame) -> pd.Series:
    """Return what is wrong with each row of a completed table, or "".

    Problems are an empty cell, a name that is no line of at most 200 characters, an attribute that neither the row nor
    the attribute set describes, equal prompts, and duplicate rows.
    """
    problems = pd.Series("", index=table.index)
    prompts = [table[column].str.split().str.join(" ").str.casefold() for column in COLUMNS[1:]]
    repeated = pd.DataFrame(
        {"attribute": table["original_feature"], 1: prompts[0], 2: prompts[1]}
    ).duplicated()
    problems[repeated] = "the row is a duplicate"
    problems[prompts[0] == prompts[1]] = "clean_prompt and corrupted_prompt are equal"
    for row in table.index[(table[list(MORE_COLUMNS)] == "").any(axis=1)]:
        problems[row] = f"the attribute '{table['original_feature'][row]}' is unknown"
    for column in ("concept", "original_feature", "counterfactual_feature"):
        of_column = table[column].map(name_problem)
        problems = problems.mask(of_column != "", f"{column} " + of_column)
    for column in COLUMNS:
        problems[table[column].str.strip() == ""] = f"{column} is empty"
    return problems


def check_rows(table: pd.DataFrame, source: str, attributes: AttributeSet | None = None) -> None:
    """Raise UserError for the first invalid row of a completed table."""
    problems = row_problems(table)
    bad = problems[problems != ""]
    if bad.empty:
        return
    known = ", ".join((attributes or load_attributes()).names)
    hint = f" (the attributes are {known})" if bad.iloc[0].endswith("is unknown") else ""
    more = f", and {len(bad) - 1} more rows are invalid" if len(bad) > 1 else ""
    raise UserError(
        f"{source}, {place(table, bad.index[0])}: {bad.iloc[0]}{hint}{more}. Fix the file, or skip such rows with "
        "`workbench pairs import --skip-bad`."
    )


def pairs_of(table: pd.DataFrame) -> list[Pair]:
    """Return the pairs of a completed table, in its order."""
    return [
        Pair(
            row.concept,
            Prompt(row.clean_prompt, {row.concept: row.original_feature}),
            Prompt(row.corrupted_prompt, {row.concept: row.counterfactual_feature}),
            row.scorer_text,
        )
        for row in table.itertuples(index=False)
    ]


def read_source(source: str) -> pd.DataFrame:
    """Read a table (see `read_table`), or download a data set from the hub (owner/name).

    Raises:
        UserError: if the source is neither, or the hub cannot be reached or has no such data set.
    """
    if Path(source).exists() or not is_hub_id(source):
        return read_table(Path(source))
    return _read_hub(source)


def _read_hub(name: str) -> pd.DataFrame:
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                name, repo_type="dataset", allow_patterns=["*.csv", "*.parquet"]
            )
        )
    except (OSError, ValueError) as error:  # all errors of the hub's client are one of these
        raise UserError(
            f"Cannot download the data set '{name}' from the hub, and there is no such file. Check the name and the "
            f"connection, or download it elsewhere with `hf download --repo-type dataset {name}`."
        ) from error
    files = sorted(folder.rglob("*.csv")) or sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(
            f"The data set {name} has neither CSV nor Parquet files. Save it as CSV and import that."
        )
    return pd.concat([read_table(file) for file in files], ignore_index=True)
