"""A patching map beside another study's, or beside a paper's published impacts."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PaperFigure
from pydantic import Field, model_validator

from analyses.patching.published_map import PREFIX
from cache.errors import UserError
from cache.wording import counted
from dashboards.drawing import palette, paper_maps, screen_maps
from dashboards.drawing.grids import as_map
from dashboards.drawing.measure import fitting_names
from dashboards.drawing.paper import POINTS, Width, empty_figure, place_axes
from dashboards.drawing.screen import LONGEST_NAME, plain, style
from dashboards.figures.base import Figure
from dashboards.figures.specs import PatchingFigureSpec
from dashboards.names import shortened
from dashboards.numbers import fixed
from dashboards.results import has_result, load_result, result_origin
from dashboards.tables.comparison import Comparison, Map, compare_maps, imported_map, published_map, study_map
from dashboards.tables.patching import UNCLEAR, UNTESTED, columns, default_columns, scorers
from dashboards.wording import cell_text, interval
from workbench.artefacts.published import load_published, published_impacts
from workbench.provenance import file_hash
from workbench.studies.study import Study

COLOURS = (palette.SEQUENTIAL[5], palette.PLANTED, "#2b8a3e", "#862e9c", "#e67700", palette.INK)
SCATTER = 150.0  # on paper, in points; its axis labels are below
BELOW = 32.0
LEFT = 44.0
LEGEND = 90.0
LONGEST_ROW = 60  # characters of a row's name in a sentence


class PatchingComparisonSpec(PatchingFigureSpec):
    """A patching map beside one other: another study's, a published table, or a published map in the study.

    `compare` is the other study's folder, `published` the table's file, `model` a model in the table (optional if it
    has only one), `imported` the model of a published map in the study, `column` the map's column (the first by
    default), `top` the number of top rows to compare.
    """

    column: str = ""
    compare: str = ""
    published: str = ""
    model: str = ""
    imported: str = ""
    top: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _one_other(self) -> "PatchingComparisonSpec":
        if sum(map(bool, (self.compare, self.published, self.imported))) != 1:
            raise ValueError("give exactly one of imported=MODEL, compare=STUDY and published=TABLE.csv")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Name, column, scorer, and the other map."""
        file = Path(self.compare).name if self.compare else Path(self.published).stem
        other = self.model or self.imported or file
        return tuple(filter(None, (self.name, self.column, self.scorer, f"vs-{other}")))

    def compared_with(self, study: Study) -> dict[str, Any]:
        """Provenance of the other map."""
        if self.compare:
            return result_origin(Study.open(Path(self.compare)), self.result_name)
        if self.imported:
            return result_origin(study, f"{PREFIX}{self.imported}")
        return {"file": self.published, "sha256": file_hash(Path(self.published))}


def compare(study: Study, spec: PatchingComparisonSpec) -> Comparison:
    """Compare a study's map with the one that `spec` names.

    Raises:
        UserError: a map does not exist, or the maps are for different questions.
    """
    ours = load_result(study, spec.result_name)
    column = spec.column or default_columns(ours)[0]
    _check_column(ours.attrs["question"], columns(ours), column)
    scorer = spec.scorer or scorers(ours)[0]
    left = study_map(study, ours, column, scorer)
    notes: list[str] = []
    if spec.published or spec.imported:
        if ours.attrs["question"] != "blocks":
            raise UserError(
                "A published table has impacts of blocks: compare a result of the question 'blocks', "
                f"not '{ours.attrs['question']}'."
            )
        right = _imported_map(study, spec.imported) if spec.imported else _table_map(spec)
        notes.append("The published table has no intervals.")
    else:
        other = Study.open(Path(spec.compare))
        theirs = load_result(other, spec.result_name)
        if theirs.attrs["question"] != ours.attrs["question"]:
            raise UserError(
                f"Result '{spec.name}' is for the question '{ours.attrs['question']}' in {study.path} but for "
                f"'{theirs.attrs['question']}' in {other.path}: compare results of the same question."
            )
        _check_column(f"{other.path}", columns(theirs), column)
        their_scorer = scorer if scorer in scorers(theirs) else scorers(theirs)[0]
        if their_scorer != scorer:
            notes.append(f"The scorers differ: {scorer} on the left, {their_scorer} on the right.")
        right = study_map(other, theirs, column, their_scorer)
    return compare_maps(left, right, spec.top, notes)


def _imported_map(study: Study, model: str) -> Map:
    if has_result(study, f"{PREFIX}{model}"):
        load_result(study, f"{PREFIX}{model}")  # says what to do if it is damaged
    return imported_map(study, model)


def _table_map(spec: PatchingComparisonSpec) -> Map:
    file = Path(spec.published)
    impacts = published_impacts(load_published(file), spec.model)
    return published_map(f"{file.stem}, {spec.model}" if spec.model else file.stem, impacts)


def _check_column(where: str, known: list[str], column: str) -> None:
    if column not in known:
        raise UserError(f"There is no column '{column}' for {where}: it has {', '.join(known)}.")


def make_table(study: Study, spec: PatchingComparisonSpec) -> pd.DataFrame:
    """One row for each cell of either map on their common concepts; see `Comparison`."""
    compared = compare(study, spec)
    if compared.frame.empty:
        raise UserError(compared.notes[0])
    return compared.frame


def draw_screen(table: pd.DataFrame, selected: tuple[str, str] | None = None) -> go.Figure:
    """The two maps of a comparison, sharing their rows; the `selected` concept and row are outlined in both."""
    hover = [_hover(row) for row in table.to_dict("records")]
    return screen_maps.draw_map(as_map(table).assign(hover=hover), selected)


def draw_scatter(matched: pd.DataFrame, names: tuple[str, str]) -> go.Figure:
    """Impacts of the cells in both maps, left against right, with their intervals; one colour per concept."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": palette.MUTED, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    for index, (concept, part) in enumerate(matched.groupby("concept", sort=False)):
        colour = COLOURS[index % len(COLOURS)]
        figure.add_scatter(
            x=part["impact_left"],
            y=part["impact_right"],
            error_x=_bars(part, "left"),
            error_y=_bars(part, "right"),
            mode="markers",
            name=plain(str(concept), LONGEST_NAME),
            marker={"color": colour, "size": 8},
            customdata=[[plain(str(concept)), plain(row)] for row in part["row"]],
            hovertemplate="%{customdata[0]}, %{customdata[1]}<br>%{x:.3f} and %{y:.3f}<extra></extra>",
        )
    for update, name in ((figure.update_xaxes, names[0]), (figure.update_yaxes, names[1])):
        update(
            title={"text": f"impact, {plain(name, LONGEST_NAME)}", "font": {"size": 11}, "standoff": 6},
            fixedrange=True,
        )
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    styled = style(figure, height=380, legend=legend, hovermode="closest")
    return styled.update_layout(showlegend=True, margin={"t": 40})


def _bars(part: pd.DataFrame, side: str) -> dict[str, Any]:
    impact, low, high = (part[f"{name}_{side}"] for name in ("impact", "impact_lo", "impact_hi"))
    return {
        "type": "data",
        "symmetric": False,
        "array": high - impact,
        "arrayminus": impact - low,
        "thickness": 1,
        "width": 2,
    }


def _hover(row: dict[Hashable, Any]) -> str:
    if pd.isna(row["impact"]):
        return str(row["status"])
    return f"{plain(row['map'])}: impact {interval(row, 'impact', 3)}"


def draw_paper(compared: Comparison, width: Width) -> PaperFigure:
    """The two maps of a comparison, and below them a scatter plot of the cells that both have."""
    parts = paper_maps.strips(as_map(compared.frame), POINTS[width])
    height = paper_maps.map_height(parts, [], POINTS[width])
    if compared.matched.empty:
        figure = empty_figure(width, height)
        paper_maps.draw_map(figure, parts, [])
        return figure
    figure = empty_figure(width, height + 10 + SCATTER + BELOW)
    paper_maps.draw_map(figure, parts, [])
    wide = min(POINTS[width] - LEFT - LEGEND - 8, 1.6 * SCATTER)
    _paper_scatter(place_axes(figure, LEFT, height + 10, wide, SCATTER), compared)
    return figure


def _paper_scatter(axes: Axes, compared: Comparison) -> None:
    axes.axline((0, 0), slope=1, color=palette.MUTED, linestyle=":", linewidth=0.8)
    groups = list(compared.matched.groupby("concept", sort=False))
    distinct = len(groups) <= len(COLOURS)  # otherwise colours would be ambiguous
    for index, (concept, part) in enumerate(groups):
        bars = []
        for side in ("left", "right"):
            impact = part[f"impact_{side}"]
            bars.append(
                [(impact - part[f"impact_lo_{side}"]).clip(0), (part[f"impact_hi_{side}"] - impact).clip(0)]
            )
        axes.errorbar(
            part["impact_left"],
            part["impact_right"],
            xerr=bars[0],
            yerr=bars[1],
            fmt="o",
            markersize=2.5,
            elinewidth=0.6,
            color=COLOURS[index] if distinct else COLOURS[0],
            label=fitting_names([str(concept)], LEGEND - 20, 7.0)[0],
        )
    for name, axis in zip(compared.names, (axes.xaxis, axes.yaxis), strict=True):
        axis.set_label_text(fitting_names([f"impact, {shortened(name, 60)}"], SCATTER, 8.0)[0])
    if distinct:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), handlelength=1, fontsize=7)


def write_caption(compared: Comparison) -> str:
    """Name the maps and say what cannot be compared and how well they agree."""
    left, right = compared.names
    sentences = [f"Impact maps of {left} and {right} on their common concepts."]
    statuses = set(compared.frame["status"])
    if statuses & set(UNCLEAR):
        sentences.append("Hatched (dagger in the table): not significant, or inside the null band.")
    if UNTESTED in statuses:
        sentences.append("Dotted (double dagger in the table): too few pairs for a test.")
    sentences += compared.notes
    return " ".join([*sentences, *describe_agreement(compared)])


def describe_agreement(compared: Comparison) -> list[str]:
    """Sentences on how well two maps agree; none if their cells cannot be matched."""
    if compared.matched.empty:
        return []
    rho = fixed(compared.spearman)
    top = len(compared.tops[0])
    shared = (
        f": {', '.join(shortened(row, LONGEST_ROW) for row in compared.overlap)}" if compared.overlap else ""
    )
    row, left_out = (
        ("single block", " (sets of blocks are left out)") if compared.leaves_out_sets else ("row", "")
    )
    same = len(compared.overlap)
    return [
        f"Spearman rank correlation of the mean impacts of {counted(len(compared.means), row)}{left_out} over "
        f"the common concepts: {rho}.",
        f"Of the {counted(top, row)} with the largest mean impacts, significant or not, {same} "
        f"{'is' if same == 1 else 'are'} the same{shared}.",
    ]


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """Both maps of a comparison as a table: one row per concept and map row, with both impacts."""
    table = table.assign(text=[cell_text(row) for _, row in table.iterrows()])
    sides = [
        part[["concept", "row", "text"]].rename(columns={"text": str(name)})
        for name, part in table.groupby("map", sort=False)
    ]
    return sides[0].merge(sides[1], on=["concept", "row"], how="outer", sort=False).fillna("")


FIGURE = Figure(
    name="patching-compare",
    spec=PatchingComparisonSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda study, spec, _table: draw_paper(compare(study, spec), spec.width),
    caption=lambda study, spec, _table: write_caption(compare(study, spec)),
    latex=print_table,
)
