"""The result of a listening study as tables: for the terminal, as CSV, and as LaTeX."""

from pathlib import Path

import pandas as pd
import xarray as xr

from cache.wording import counted
from dashboards.latex import latex_table
from dashboards.numbers import UNDEFINED, fixed, percent, span
from dashboards.spreadsheet import csv_text
from workbench.files import replacing

TABLE = "analysis"


def main_table(result: xr.Dataset) -> pd.DataFrame:
    """Return scores and ranks of conditions, best first, or mean ratings by question and condition."""
    return _scores(result) if result.attrs["design"] == "pairs" else _means(result)


def excluded_table(result: xr.Dataset) -> pd.DataFrame:
    """Return the listeners who are excluded, and why."""
    reasons = {
        int(number): str(reason) for number, reason in result["excluded"].to_series().items() if reason
    }
    return pd.DataFrame({"listener": list(reasons), "excluded because": list(reasons.values())})


def sentences(result: xr.Dataset) -> list[str]:
    """Return what a reader of the table must know: listeners, agreement, and how it was computed."""
    total = result.sizes["listener"]
    said = [f"{counted(int(result.attrs['n_listeners']), 'listener')} of {total}; intervals over listeners."]
    if "question" in result.dims:
        for question in result["question"].values:
            said.append(f"{question} {_agreement(result.sel(question=question))}")
        said.append("Model: rating by condition, with random intercepts of listeners and items.")
    else:
        said.append(_agreement(result))
        said.append("Scores: Bradley–Terry, with ties as in Davidson (1970); the mean is 0.")
        if result.attrs["regularised"]:
            said.append(
                "Some conditions never lost to others, so that scores have no finite estimate: they have a normal "
                "prior of standard deviation 2."
            )
    return said


def caption(result: xr.Dataset) -> str:
    """Return the caption of the table for a paper."""
    return " ".join([f"{str(result.attrs['title']).rstrip('.')}.", *sentences(result)])


def write_tables(folder: Path, result: xr.Dataset) -> list[Path]:
    """Write the table as CSV, with all digits, and as LaTeX; return the files."""
    latex = latex_table(main_table(result), caption(result), f"tab:{folder.resolve().name}")
    contents = {"csv": csv_text(numbers(result)), "tex": latex}
    files = []
    for ending, content in contents.items():
        file = folder / f"{TABLE}.{ending}"
        with replacing(file, folder) as partial:
            partial.write_text(content, encoding="utf-8")
        files.append(file)
    return files


def numbers(result: xr.Dataset) -> pd.DataFrame:
    """Return the numbers of the table, with all digits."""
    names = [
        name for name, array in result.items() if "condition" in array.dims and "other" not in array.dims
    ]
    return result[names].to_dataframe().reset_index()


def _scores(result: xr.Dataset) -> pd.DataFrame:
    confidence = percent(result.attrs["confidence"], 0)
    rows = []
    for name in result["condition"].values[result["rank"].values.argsort(kind="stable")]:
        one = result.sel(condition=name)
        rows.append(
            {
                "condition": str(name),
                "score": fixed(one["score"].item()),
                f"{confidence} interval": span(one["score_lo"].item(), one["score_hi"].item()),
                "rank": f"{one['rank'].item():g}",
                "ranks": _ranks(one["rank_lo"].item(), one["rank_hi"].item()),
                "preferred": percent(one["preferred"].mean().item(), 0),
                "n": int(one["n"].item()),
            }
        )
    return pd.DataFrame(rows)


def _means(result: xr.Dataset) -> pd.DataFrame:
    confidence = percent(result.attrs["confidence"], 0)
    rows = []
    for question in result["question"].values:
        for name in result["condition"].values:
            one = result.sel(question=question, condition=name)
            rows.append(
                {
                    "question": str(question),
                    "condition": str(name),
                    "mean": fixed(one["mean"].item()),
                    f"{confidence} interval": span(one["mean_lo"].item(), one["mean_hi"].item()),
                    "model": fixed(one["modelled"].item()),
                    "model's interval": span(one["modelled_lo"].item(), one["modelled_hi"].item()),
                    "n": int(one["n"].item()),
                }
            )
    table = pd.DataFrame(rows)
    return table if result.sizes["question"] > 1 else table.drop(columns="question")


def _ranks(low: float, high: float) -> str:
    if low != low or high != high:
        return UNDEFINED
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _agreement(result: xr.Dataset) -> str:
    interval = span(result["alpha_lo"].item(), result["alpha_hi"].item())
    return f"Krippendorff's alpha {fixed(result['alpha'].item())} {interval}."
