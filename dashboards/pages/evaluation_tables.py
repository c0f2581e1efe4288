"""The tables of an evaluation: its methods with their numbers, and TADA's areas."""

from typing import Any

import pandas as pd
import xarray as xr
from dash.development.base_component import Component

from dashboards.components.grid import WRAPPED, number_column, row_grid
from dashboards.numbers import span
from dashboards.pages.evaluation_view import EVERY
from dashboards.tables.benchmark import published_frame, ranking_frame
from dashboards.wording import interval

TABLE_HELP = (
    "Each method at the strength that other prompts and other judges chose, and at equal distance. Kept: how much of "
    "the unsteered clip is kept, from 1 to 0 (as far from it as the real prompt's clip). Together: the harmonic mean "
    "of what is reached and kept. Rank: at equal distance. A row shows its curves alone."
)
AREAS_HELP = "TADA's areas and smoothness: means over all clips without intervals, up to the distance that PCI reaches."
NUMBERS = {
    "strength": ("strength", ".3~g", "The strength that other prompts and other judges chose."),
    "effect": ("change", ".2f", "The change in the judge's score from the unsteered clips."),
    "preservation": (
        "kept",
        ".2f",
        "How much of the unsteered clip is kept: 1, all; 0, it is as far away as the real prompt's.",
    ),
    "harmonic": (
        "together",
        ".2f",
        "The harmonic mean of what is reached of the real prompt's change, and kept.",
    ),
    "strength_at": (
        "strength",
        ".2~g",
        "The strength that makes the distance at which methods are compared.",
    ),
    "ratio_at": ("of the real", ".2f", "The change as a fraction of the one that the real prompt makes."),
    "rank": (
        "rank",
        ".1f",
        "The place among the methods: 1 is the best. Controls at other blocks have none.",
    ),
}
"""The columns of numbers: their headings, their d3 formats, and what they are."""
WIDTHS = dict(zip(NUMBERS, (76, 68, 56, 78, 76, 92, 56), strict=True))
RANDOM_HELP = "Where random vectors at the same blocks lie, as a fraction of the real prompt's change."
INTERVALS = ("effect", "ratio_at", "rank")
AREAS = {
    "area": "area",
    "area_positive": "towards",
    "area_negative": "away",
    "smoothness": "smoothness",
    "cutoff_positive": "cutoff, towards",
    "cutoff_negative": "cutoff, away",
}


def methods_grid() -> Component:
    """The table of methods."""
    numbers = {
        name: {
            "field": name,
            "headerName": heading,
            "headerTooltip": meaning,
            "width": WIDTHS[name],
            **number_column(format),
            **({"tooltipField": f"{name}_text"} if name in INTERVALS else {}),
        }
        for name, (heading, format, meaning) in NUMBERS.items()
    }
    at_distance = [
        *(numbers[name] for name in ("strength_at", "ratio_at")),
        {"field": "ratio_span", "headerName": "of the real, 95 %", "width": 136},
        {"field": "random", "headerName": "random vectors", "headerTooltip": RANDOM_HELP, "width": 130},
        numbers["rank"],
        {"field": "rank_span", "headerName": "rank, 95 %", "width": 92},
    ]
    chosen = [numbers[name] for name in ("strength", "effect", "preservation", "harmonic")]
    columns: list[dict[str, Any]] = [
        {"field": "concept", "width": 90, "tooltipField": "concept"},
        {
            "field": "way",
            "headerName": "method",
            "flex": 1,
            "minWidth": 150,
            "tooltipField": "way",
            "cellClass": "three-lines",
            **WRAPPED,
        },
        {"headerName": "at the chosen strength", "children": chosen},
        {"headerName": "at equal distance", "children": at_distance},
    ]
    return row_grid("evaluation-grid", columns, height=300)


def areas_grid() -> Component:
    """The table of TADA's areas."""
    columns: list[dict[str, Any]] = [
        {"field": "concept", "width": 110},
        {"field": "way", "headerName": "method", "flex": 1, "minWidth": 170},
        *(
            {"field": name, "headerName": heading, "width": 122, **number_column(".3f", "undefined")}
            for name, heading in AREAS.items()
        ),
    ]
    return row_grid("evaluation-areas", columns, height=420)


def method_rows(result: xr.Dataset, now: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of the table, the best at equal distance first."""
    table = ranking_frame(result, now["scorer"], now["measure"])
    table = table[table["direction"] == now["direction"]]
    if now["concept"] != EVERY:
        table = table[table["concept"] == now["concept"]]
    rows = []
    for row in table.sort_values("rank", kind="stable", na_position="last").to_dict("records"):
        shown: dict[str, Any] = {
            "id": f"{row['concept']} {row['way']}",
            "way": str(row["way"]),
            "concept": str(row["concept"]),
        }
        shown |= {name: None if pd.isna(row[name]) else float(row[name]) for name in NUMBERS}
        shown |= {f"{name}_text": interval(row, name) for name in INTERVALS}
        shown["ratio_span"] = _span(row, "ratio_at")
        shown["rank_span"] = _span(row, "rank", 1)
        has_band = not pd.isna(row["band_lo"]) and row["control"] > 0
        shown["random"] = (
            span(row["band_lo"] / row["control"], row["band_hi"] / row["control"]) if has_band else ""
        )
        rows.append(shown)
    return rows


def _span(row: dict[Any, Any], name: str, digits: int = 2) -> str:
    return "" if pd.isna(row[f"{name}_lo"]) else span(row[f"{name}_lo"], row[f"{name}_hi"], digits)


def area_rows(result: xr.Dataset, now: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of the table of TADA's areas."""
    table = published_frame(result, now["scorer"], now["measure"])
    if now["concept"] != EVERY:
        table = table[table["concept"] == now["concept"]]
    table = table.assign(id=table["concept"] + " " + table["way"])
    return table.astype(object).where(table.notna(), None).to_dict("records")
