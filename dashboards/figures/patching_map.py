"""The patching map: impact of each arm, with panels side by side and null arms below."""

from collections.abc import Hashable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.figure import Figure as PaperFigure

from analyses.statistics import ALPHA, too_few_pairs
from dashboards.drawing import paper_maps, screen_maps
from dashboards.drawing.paper import POINTS, Width, empty_figure
from dashboards.figures.base import Figure
from dashboards.figures.specs import PatchingFigureSpec
from dashboards.numbers import compared_p, p_value
from dashboards.results import load_result
from dashboards.tables.patching import (
    ALL,
    SCREENED_OUT,
    UNTESTED,
    agreement,
    cells_frame,
    choose,
    columns,
    default_columns,
    default_concept,
    pair_notes,
    tested_cells,
    untested_notes,
)
from dashboards.truth import planted_blocks
from dashboards.wording import (
    agreed_text,
    band,
    cell_text,
    confidence,
    interval,
    sample,
    undefined_because,
)
from workbench.studies.study import Study

MEANINGS = {
    "sufficiency": "Sufficiency is the fraction of the concept that is restored in the corrupt run.",
    "necessity": "Necessity is the fraction of the concept that is lost in the clean run.",
}


class PatchingMapSpec(PatchingFigureSpec):
    """A patching map; `truth` marks the blocks listed on the model's truth card.

    `concept` is one concept, whose columns go across, or `all`; `column` is the column of a map of all concepts.
    """

    concept: str = ""
    column: str = ""
    truth: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The selection."""
        asked = (self.name, self.concept, self.column, self.scorer, "truth" if self.truth else "")
        return tuple(filter(None, asked))


def make_table(study: Study, spec: PatchingMapSpec) -> pd.DataFrame:
    """The rows of `map_frame` selected by the spec."""
    planted = planted_blocks(study) if spec.truth else None
    return map_frame(load_result(study, spec.result_name), spec.scorer, spec.concept, spec.column, planted)


def map_frame(
    result: xr.Dataset,
    scorer: str = "",
    concept: str = "",
    column: str = "",
    planted: dict[str, list[int]] | None = None,
) -> pd.DataFrame:
    """Return one row for each cell on a map: the rows of `cells_frame`, preceded by `panel` and `across`.

    `concept` (default: `default_concept`) names one concept, whose columns then go across, or is "all": then concepts
    go across, in a panel for `column`, or by default for each of `default_columns`. If cells were patched in both
    directions, each direction has its own panel. If several null arms share a position, the one with the largest
    impact is kept, and `largest_of` is their number (1 for cells).

    Raises:
        UserError: the result does not have one of the names.
    """
    cells = cells_frame(result, scorer, planted)
    shown = concept or default_concept(result)
    if shown != ALL:
        choose("concept", shown, list(dict.fromkeys(cells["concept"])))
    both = cells[cells["group"] == "cell"].duplicated(["concept", "row", "column"]).any()
    if shown != ALL:
        frame = cells[cells["concept"] == shown].reset_index(drop=True)
        frame.insert(0, "panel", frame["direction"] if both else shown)
        frame.insert(1, "across", frame["beside"])
        return _largest_nulls(frame)
    panels = [choose("column", column, columns(result))] if column else default_columns(result)
    frame = pd.concat([cells[_in_panel(cells, panel)].assign(panel=panel) for panel in panels])
    if both:
        frame["panel"] += ", " + frame["direction"]
    frame.insert(0, "panel", frame.pop("panel"))
    frame.insert(1, "across", frame["concept"])
    return _largest_nulls(frame.reset_index(drop=True))


def _largest_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one null arm at each position, the one with the largest absolute impact."""
    place = ["panel", "across", "label"]
    nulls = frame[frame["group"] == "null"]
    order = nulls["impact"].abs().fillna(-1.0).sort_values(ascending=False, kind="stable").index
    kept = nulls.loc[order].drop_duplicates(place).sort_index()
    count = nulls.groupby(place).size().groupby("label").max()
    kept = kept.assign(largest_of=kept["label"].map(count))
    cells = frame[frame["group"] == "cell"].assign(largest_of=1)
    return pd.concat([cells, kept], ignore_index=True)


def _in_panel(cells: pd.DataFrame, panel: str) -> pd.Series:
    """Select a column's cells and the null arms below it: its own, and those of its direction without a column."""
    of_column = cells["beside"] == panel
    known = set(cells.loc[cells["group"] == "cell", "beside"])
    directions = {*cells.loc[of_column, "direction"], ""}
    of_direction = (cells["group"] == "null") & cells["direction"].isin(directions)
    return of_column | (of_direction & ~cells["beside"].isin(known))


def draw_screen(table: pd.DataFrame, selected: tuple[str, str] | None = None) -> go.Figure:
    """Heatmap of impact with its numbers.

    Cells that are not significant or inside the null band are hatched, undefined cells are grey and labelled, and
    planted cells (column `planted`) and the `selected` cell (concept, arm) are outlined.
    """
    return screen_maps.draw_map(
        table.assign(hover=[_hover(row) for row in table.to_dict("records")]), selected
    )


def _hover(row: dict[Hashable, Any]) -> str:
    denominator = f"clean − corrupt score: {interval(row, 'denominator', 3)}"
    count = f"n = {row['n']:.0f} from {row['n_pairs']:.0f} pairs"
    if row["status"] == "undefined":
        return f"undefined: {undefined_because(row)}<br>{denominator}<br>{count}"
    if not row["n_pairs"]:
        return f"no score: the scorer gave none for this concept<br>{count}"
    if row["status"] == SCREENED_OUT:
        return f"not run: left out by the screening<br>{denominator}<br>{count}"
    if row["status"] == "no score":
        return f"no score: the scorer failed on this arm<br>{denominator}<br>{count}"
    impact = f"impact {interval(row, 'impact', 3)}"
    test = "null arm: expected by chance"
    if row["group"] == "cell":
        verdict = too_few_pairs(int(row["n_pairs"])) if row["status"] == UNTESTED else row["status"]
        test = f"p {compared_p(row['p'])}, adjusted {p_value(row['p_adjusted'])}: {verdict}"
    planted = "<br>planted here" if row.get("planted") else ""
    return f"{row['direction']} {impact}<br>{test}<br>{denominator}<br>{count}{planted}"


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """Heatmap of impact, hatched where not significant or inside the null band.

    Where no p-value can be significant, cells are dotted and a line below the map says why.
    """
    parts, notes = paper_maps.strips(table, POINTS[width]), pair_notes(table)
    figure = empty_figure(width, paper_maps.map_height(parts, notes, POINTS[width]))
    paper_maps.draw_map(figure, parts, notes)
    return figure


def write_caption(result: xr.Dataset, table: pd.DataFrame) -> str:
    """Describe the patching, the tests, and the data behind each concept's impacts."""
    scorer = str(table["scorer"].iloc[0])
    concepts = list(dict.fromkeys(table["concept"]))
    across = result.attrs["column_label"] if len(concepts) == 1 else "concept"
    on_concept = f" on {concepts[0]}" if len(concepts) == 1 else ""
    cells = table[table["group"] == "cell"]
    shown = "" if len(concepts) == 1 else f" ({', '.join(dict.fromkeys(cells['panel']))})"
    sentences = [
        f"Impact of patching{on_concept}, by {result.attrs['row_label']} (rows) and {across} (columns){shown}; "
        f"question {result.attrs['question']}, mode {result.attrs['mode']}, scorer {scorer}.",
        *(text for direction, text in MEANINGS.items() if direction in set(cells["direction"])),
        *_tests(result, table),
        *_null_rows(table),
    ]
    if "planted" in table:
        sentences.append("Outlined: the blocks listed on the model's truth card.")
    seeds = result.sizes["seed"]
    for _, row in table.drop_duplicates("concept").iterrows():
        sentences.append(
            f"{row['concept']}: {_concept_sentence(row, seeds, agreement(result, row['concept'], scorer))}."
        )
    return " ".join([*sentences, str(result.attrs["stopped"])]).strip()


def _tests(result: xr.Dataset, table: pd.DataFrame) -> list[str]:
    cells = tested_cells(result, str(table["scorer"].iloc[0]))
    sentences = [f"Intervals are {confidence(result)} BCa bootstrap intervals over pairs."]
    if set(table["status"]) - {UNTESTED, SCREENED_OUT, "undefined", "no score", "null arm"}:
        sentences.append(
            f"Hatched (dagger in the table): not significant (p > {ALPHA:g} after {result.attrs['correction']} over "
            f"{cells} cells) or inside the null band."
        )
    if (table["status"] == SCREENED_OUT).any():
        sentences.append(
            "Cells without a number were left out by a screening, and count as p = 1 in the correction."
        )
    if untested_notes(table):
        sentences.append("Dotted (double dagger in the table): too few pairs for a test.")
    return [*sentences, *pair_notes(table)]


def _null_rows(table: pd.DataFrame) -> list[str]:
    nulls = table[table["group"] == "null"]
    if nulls.empty:
        return []
    largest = sorted(f"largest of {count}" for count in set(nulls["largest_of"]) - {1})
    shown = f"; each shows the {' or '.join(largest)}" if largest else ""
    return [f"Rows below the gap are null arms, which are not tested{shown}."]


def _no_impacts(row: pd.Series) -> str:
    if row["n_pairs"] == 1:
        return "impacts undefined (one pair has no interval)"
    return "not clearly above zero, so impacts are undefined"


def _concept_sentence(row: pd.Series, seeds: int, agreements: dict[str, dict[str, float | int]]) -> str:
    if not row["n_pairs"]:
        return "the scorer gave no scores"
    facts = [sample(row, seeds), f"denominator (clean − corrupt) {interval(row, 'denominator')}"]
    if not row["defined"]:
        return ", ".join([*facts, _no_impacts(row)])
    facts += [f"null band {band(row)}", f"stability {interval(row, 'stability')}"]
    facts += [f"agreement with {name} {agreed_text(agreed)}" for name, agreed in agreements.items()]
    return ", ".join(facts)


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The map as a table with the same rows, one column per panel and column, and impacts with their intervals."""
    panels = table["panel"].nunique() > 1
    several = " (largest of " + table["largest_of"].astype(str) + ")"
    named = table.assign(
        label=table["label"].where(table["largest_of"] == 1, table["label"] + several),
        name=table["across"] + (" (" + table["panel"] + ")" if panels else ""),
        text=[cell_text(row) for _, row in table.iterrows()],
    )
    wide = named.pivot(index="label", columns="name", values="text")
    wide = wide.loc[list(dict.fromkeys(named["label"])), list(dict.fromkeys(named["name"]))].fillna("")
    return wide.rename_axis(index="row", columns=None).reset_index().rename(columns={"row": ""})


FIGURE = Figure(
    name="patching",
    spec=PatchingMapSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, table: write_caption(load_result(study, spec.result_name), table),
    latex=print_table,
)
