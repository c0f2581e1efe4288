"""Probe maps: one map per concept, blocks down and denoising steps across."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure as PaperFigure
from plotly.subplots import make_subplots

from analyses.statistics import ALPHA, MIN_P
from dashboards.drawing import palette
from dashboards.drawing.measure import fitting_names, fitting_size, width_of
from dashboards.drawing.paper import (
    POINTS,
    Width,
    draw_cells,
    empty_figure,
    hatch_cells,
    place_axes,
    write_numbers,
)
from dashboards.drawing.paper_maps import BAR, NAME_SIZE, ROW, TALLEST, colour_bar, name_rows
from dashboards.drawing.screen import cell_numbers, color_axis, hatch, plain, selection, style
from dashboards.figures.base import Figure
from dashboards.figures.specs import Options, ProbesFigureSpec, check_choice
from dashboards.names import shortened
from dashboards.numbers import compared_p, fixed, p_value
from dashboards.results import load_result
from dashboards.tables.probes import HELD_TOGETHER, block_labels, probes_frame
from dashboards.wording import interval
from workbench.studies.study import Study

Quantity = Literal["accuracy", "control", "selectivity"]

SCREEN_COLUMNS = 2
SCREEN_TITLE = 34  # characters that fit above a panel on screen
TRACES = 4  # per concept: its heatmap, hatching on light and on dark cells, and numbers
ROW_PIXELS = 22
NUMBERS_UP_TO = 12  # steps across; with more, the numbers no longer fit their cells
HOVER = (
    "<b>%{customdata[0]} · %{customdata[1]} · step %{customdata[2]}</b><br>%{customdata[3]}<extra></extra>"
)

# On paper.
PAPER_COLUMNS = {"single": 1, "double": 2}
MIN_HEIGHT = 64.0  # points, of the figure, for the colour bar


class ProbeMapsSpec(ProbesFigureSpec):
    """Probe maps of one part of the network (by default the first that was probed), one panel per concept."""

    part: str
    quantity: Quantity = "accuracy"

    @property
    def labels(self) -> tuple[str, ...]:
        """Part and quantity."""
        return (self.part, self.quantity)

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """The options with `part` filled in."""
        if "part" in options:
            return dict(options)
        return {**options, "part": probes_frame(load_result(study, "probes"))["part"].iloc[0]}


def make_table(study: Study, spec: ProbeMapsSpec) -> pd.DataFrame:
    """The rows of `probes_frame` for one part."""
    frame = probes_frame(load_result(study, spec.result_name))
    check_choice("part", spec.part, list(frame["part"].unique()))
    return frame[frame["part"] == spec.part].reset_index(drop=True)


def is_unclear(q_values: Any) -> Any:
    """Whether probes, given an array or column of q-values, are not significantly above the control (hatched)."""
    return ~(q_values.astype(float) < ALPHA)


class Said(NamedTuple):
    """What maps say of a row of their table: beside a map's name, and of a cell under the pointer."""

    beside: Callable[[Mapping[Hashable, Any]], str]
    hover: Callable[[Mapping[Hashable, Any]], str]


def draw_screen(
    table: pd.DataFrame, quantity: str, selected: tuple[str, str, int] | None = None, said: Said | None = None
) -> go.Figure:
    """One heatmap of `quantity` per concept, blocks down and steps across.

    Cells not significantly above the control (q >= 0.05) are hatched; the `selected` one (concept, site, step) is
    outlined.
    """
    said = said or OF_CONCEPTS
    concepts = list(dict.fromkeys(table["concept"]))
    rows = -(-len(concepts) // SCREEN_COLUMNS)
    titles, extra = _screen_titles(table, said)
    height = rows * (ROW_PIXELS * table["block"].nunique() + 84 + extra)
    figure = make_subplots(
        rows=rows,
        cols=min(SCREEN_COLUMNS, len(concepts)),
        subplot_titles=titles,
        horizontal_spacing=0.09,
        vertical_spacing=(86 + extra) / height,
    )
    panels: list[_Panel] = []
    axes: dict[str, dict[str, Any]] = {}
    for index, concept in enumerate(concepts):
        mark = selected[1:] if selected is not None and selected[0] == concept else None
        panels.append(_panel(table[table["concept"] == concept], quantity, mark, said))
        number = index + 1 if index else ""
        axes |= {f"xaxis{number}": panels[-1].across, f"yaxis{number}": panels[-1].down}
    places = [divmod(index, SCREEN_COLUMNS) for index, panel in enumerate(panels) for _ in panel.traces]
    figure.add_traces(
        [trace for panel in panels for trace in panel.traces],
        rows=[row + 1 for row, _ in places],
        cols=[column + 1 for _, column in places],
    )
    figure.update_annotations(font={"size": 13, "color": palette.INK})
    styled = style(figure, height=height, coloraxis=color_axis(quantity, height), clickmode="event")
    styled.update_layout(axes, margin={"t": 34 + extra})
    for index, panel in enumerate(panels):
        row, column = divmod(index, SCREEN_COLUMNS)
        for shape in panel.shapes:
            styled.add_shape(shape, row=row + 1, col=column + 1)
    return styled


def _screen_titles(table: pd.DataFrame, said: Said) -> tuple[list[str], int]:
    """The panels' titles, on two lines if one is too long for its panel, and the second line's height in pixels."""
    panels = table.drop_duplicates("concept").to_dict("records")
    titles = [(plain(row["concept"], SCREEN_TITLE), said.beside(row)) for row in panels]
    if any(len(f"{name}  ({beside})") > SCREEN_TITLE for name, beside in titles):
        return [f"<b>{name}</b><br>{beside}" for name, beside in titles], 16
    return [f"<b>{name}</b>" + (f"  ({beside})" if beside else "") for name, beside in titles], 0


def probe_at(table: pd.DataFrame, curve: int, x: float, y: float) -> tuple[str, str, int] | None:
    """The probe (concept, site, step) at a position on the map in axis units, in the trace numbered `curve`.

    A click on a heatmap reports only its position.
    """
    concepts, sites, steps = (list(dict.fromkeys(table[name])) for name in ("concept", "site", "step"))
    column, row = int(x), int(y)
    known = 0 <= column < len(steps) and 0 <= row < len(sites) and curve < TRACES * len(concepts)
    return (concepts[curve // TRACES], sites[row], int(steps[column])) if known else None


class _Panel(NamedTuple):
    """The map of one concept on screen: its traces, its axes and the frame around the selected cell."""

    traces: list[Any]
    across: dict[str, Any]
    down: dict[str, Any]
    shapes: list[dict[str, Any]]


def _panel(frame: pd.DataFrame, quantity: str, selected: tuple[str, int] | None, said: Said) -> _Panel:
    rows = frame.to_dict("records")
    frame = frame.assign(hover=[said.hover(row) for row in rows], name=plain(rows[0]["concept"]))
    sites, steps = list(dict.fromkeys(frame["site"])), list(dict.fromkeys(frame["step"]))

    def table(column: str) -> np.ndarray:
        return frame[column].to_numpy().reshape(len(sites), len(steps))

    values = table(quantity).astype(float)
    lefts, tops = list(map(float, range(len(steps)))), list(map(float, range(len(sites))))
    cells = go.Heatmap(
        z=values,
        x=list(range(len(steps) + 1)),
        y=list(range(len(sites) + 1)),
        coloraxis="coloraxis",
        customdata=np.stack(
            [table(name).astype(object) for name in ("name", "site", "step", "hover")], axis=-1
        ),
        hovertemplate=HOVER,
        xgap=1,
        ygap=1,
    )
    few = len(steps) <= NUMBERS_UP_TO
    hatching = hatch(is_unclear(table("q_value")), values, lefts, tops, sparse=not few)
    shown = cell_numbers(values if few else np.full_like(values, np.nan), lefts, tops, 10)
    ticks = steps if few else steps[:: -(-len(steps) // NUMBERS_UP_TO)]
    still = {"showgrid": False, "fixedrange": True}
    across = {
        "tickvals": [steps.index(step) + 0.5 for step in ticks],
        "ticktext": [str(step) for step in ticks],
        "title": {
            "text": "denoising step",
            "font": {"size": 11, "color": palette.MUTED},
            "standoff": 4,
        },
        "range": [0, len(steps)],
    }
    down = {
        "tickvals": [top + 0.5 for top in tops],
        "ticktext": list(map(plain, block_labels(frame))),
        "range": [len(sites), 0],
    }
    is_here = selected is not None and selected[0] in sites and selected[1] in steps
    shapes = (
        selection(float(steps.index(selected[1])), float(sites.index(selected[0])))
        if selected is not None and is_here
        else []
    )
    return _Panel([cells, *hatching, shown], across | still, down | still, shapes)


def _chance(row: Mapping[Hashable, Any]) -> str:
    return f"chance {fixed(float(row['chance']))}"


def _hover(row: Mapping[Hashable, Any]) -> str:
    return (
        f"accuracy {interval(row, 'accuracy', 3)}<br>"
        f"shuffled labels {fixed(row['control'], 3)}, selectivity {fixed(row['selectivity'], 3)}<br>"
        f"chance {fixed(row['chance'], 3)}, q {compared_p(row['q_value'])}, σ = {fixed(row['sigma'], 3)}<br>"
        f"n = {fixed(row['n'], 0)} clips from {fixed(row['groups'], 0)} prompts"
    )


OF_CONCEPTS = Said(_chance, _hover)


@dataclass(frozen=True)
class Spacing:
    """Space around the maps of concepts, and their smallest size; in points."""

    gap: float
    title: float
    steps: float  # for the steps' numbers and their name, below each map
    min_width: float
    min_row: float


ROOMY = Spacing(gap=12.0, title=14.0, steps=26.0, min_width=48.0, min_row=2.0)
# For dozens of concepts: only the lowest maps show step numbers.
DENSE = Spacing(gap=4.0, title=10.0, steps=2.0, min_width=22.0, min_row=1.0)


@dataclass(frozen=True)
class Panels:
    """Layout of the maps of concepts, all the same size, on the page; in points."""

    spacing: Spacing
    columns: int
    rows: int
    left: float
    wide: float
    tall: float

    @property
    def height(self) -> float:
        """Height of the figure."""
        each = self.spacing.title + self.tall + self.spacing.steps
        return self.rows * each + ROOMY.steps - self.spacing.steps

    def place(self, index: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of a concept's map."""
        down, across = divmod(index, self.columns)
        top = self.spacing.title + down * (self.spacing.title + self.tall + self.spacing.steps)
        return self.left + across * (self.wide + self.spacing.gap), top, self.wide, self.tall

    def has_steps(self, index: int) -> bool:
        """Whether step numbers are shown below a concept's map."""
        return self.spacing is ROOMY or index // self.columns == self.rows - 1


def draw_paper(table: pd.DataFrame, quantity: str, width: Width, said: Said = OF_CONCEPTS) -> PaperFigure:
    """One map of `quantity` per concept, hatched where q >= 0.05."""
    concepts = list(dict.fromkeys(table["concept"]))
    names = fitting_names(block_labels(table), 60.0, NAME_SIZE)
    panels = _panels(len(concepts), names, width)
    height = max(panels.height, MIN_HEIGHT)
    figure = empty_figure(width, height)
    for index, concept in enumerate(concepts):
        one = table[table["concept"] == concept]
        mesh = _draw_panel(figure, one, quantity, panels, index, names, said)
    bar = min(150.0, height - 18)
    colour_bar(figure, mesh, quantity, POINTS[width] - BAR + 8, panels.spacing.title, bar)
    return figure


def _panels(n: int, names: list[str], width: Width) -> Panels:
    """The layout with the fewest columns that fits all maps on one page, dense only if necessary."""
    left = max(width_of(name, NAME_SIZE) for name in names) + 6
    for spacing in (ROOMY, DENSE):
        for columns in range(min(PAPER_COLUMNS[width], n), n + 1):
            rows = -(-n // columns)
            row = ((TALLEST - ROOMY.steps) / rows - spacing.title - spacing.steps) / len(names)
            wide = (POINTS[width] - left - BAR - (columns - 1) * spacing.gap) / columns
            if wide < spacing.min_width:
                break
            panels = Panels(spacing, columns, rows, left, wide, len(names) * min(0.9 * ROW, max(row, 1.0)))
            if row >= spacing.min_row:
                return panels
    return panels  # more than a page


def _draw_panel(
    figure: PaperFigure,
    frame: pd.DataFrame,
    quantity: str,
    panels: Panels,
    index: int,
    names: list[str],
    said: Said,
) -> QuadMesh:
    blocks, steps = list(dict.fromkeys(frame["block"])), list(dict.fromkeys(frame["step"]))

    def table(column: str) -> np.ndarray:
        return frame.pivot(index="block", columns="step", values=column).loc[blocks, steps].to_numpy(float)

    axes = place_axes(figure, *panels.place(index))
    row = panels.tall / len(blocks)
    lefts, tops = list(map(float, range(len(steps)))), list(map(float, range(len(blocks))))
    cell = panels.wide / len(steps)
    mesh = draw_cells(axes, table(quantity), lefts, tops, min(cell, row))
    hatch_cells(axes, is_unclear(table("q_value")), lefts, tops)
    write_numbers(axes, table(quantity), lefts, tops, cell, row)
    axes.set_xlim(0, len(steps))
    axes.set_ylim(len(blocks), 0)
    name_rows(axes, tops, names if index % panels.columns == 0 else [""] * len(names), row)
    labels = [str(step) for step in steps]
    one_in = -int(-(max(width_of(label, NAME_SIZE) for label in labels) + 4) // cell)
    if panels.has_steps(index):
        axes.set_xticks([left + 0.5 for left in lefts[::one_in]], labels[::one_in], fontsize=NAME_SIZE)
        axes.tick_params(axis="x", pad=2)
        if size := fitting_size("denoising step", panels.wide, NAME_SIZE):
            axes.set_xlabel("denoising step", labelpad=1, fontsize=size)
    else:
        axes.set_xticks([])
    _title(axes, frame, panels.wide, said)
    return mesh


def _title(axes: Any, frame: pd.DataFrame, wide: float, said: Said) -> None:
    concept, beside = str(frame["concept"].iloc[0]), said.beside(frame.to_dict("records")[0])
    full = shortened(concept, 40) + (f" ({beside})" if beside else "")
    size = fitting_size(full, wide, 8.0)
    text = full if size else fitting_names([concept], wide, 6.0)[0]
    axes.set_title(text, fontsize=size or 6.0, pad=3)


def write_caption(table: pd.DataFrame, quantity: str) -> str:
    """Describe the probes, what was held out together, the number of clips, and the intervals and tests."""
    counts = table.drop_duplicates("concept")
    held_out = "; ".join(
        f"{words} for {', '.join(concepts)}"
        for unit, words in HELD_TOGETHER.items()
        if (concepts := list(counts.loc[counts["held_together"] == unit, "concept"]))
    )
    sizes = "; ".join(
        f"{row.concept}: {fixed(row.n, 0)} clips of {fixed(row.groups, 0)} prompts, chance {fixed(row.chance)}"
        for row in counts.itertuples()
    )
    return (
        f"Linear probes for each concept on {table['part'].iloc[0]} by block and denoising step: {quantity}. Accuracy "
        "is balanced and cross-validated; the control is the mean accuracy of the same probe refitted to shuffled "
        "labels; selectivity is accuracy − mean accuracy of all of the concept's probes of shuffled labels. "
        f"Held out whole: {held_out}. "
        "Intervals are 95 % intervals of the accuracy over the tested prompts, with the trained probes held fixed: BCa "
        "bootstrap, or exact binomial if every clip is right. "
        "Hatched: not significantly above shuffled labels (q ≥ 0.05 after Benjamini–Hochberg over all probes; p is "
        "one-sided, from a t distribution fitted to the accuracies of the concept's probes of shuffled labels, and not "
        f"given below {MIN_P:g}). {sizes}."
    )


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: one row per probe; the CSV has the other numbers."""
    accuracy = [interval(row, "accuracy") for row in table.to_dict("records")]
    shown = table.assign(**{"accuracy [95 %]": accuracy, "q": table["q_value"].map(p_value)})
    return shown[["concept", "site", "step", "accuracy [95 %]", "control", "selectivity", "q", "n"]]


FIGURE = Figure(
    name="probes",
    spec=ProbeMapsSpec,
    table=make_table,
    screen=lambda _study, spec, table: draw_screen(table, spec.quantity),
    paper=lambda _study, spec, table: draw_paper(table, spec.quantity, spec.width),
    caption=lambda _study, spec, table: write_caption(table, spec.quantity),
    latex=print_table,
)
