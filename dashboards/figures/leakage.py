"""What steering a concept does to the others: steered concepts down, judged ones across, a panel for each method."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as PaperFigure
from matplotlib.patches import Rectangle
from plotly.subplots import make_subplots

from dashboards.drawing import palette
from dashboards.drawing.measure import LINE, fitting_names, fitting_size, width_of
from dashboards.drawing.paper import POINTS, Width, empty_figure, place_axes
from dashboards.drawing.screen import LONGEST_NAME, plain, style
from dashboards.figures.base import Figure
from dashboards.figures.specs import BenchmarkFigureSpec, check_choice
from dashboards.numbers import fixed
from dashboards.tables.benchmark import leakage_frame, methods
from dashboards.tables.patching import choose, scorers
from dashboards.wording import benchmark_sample, deaf_sentences, interval
from workbench.studies.study import Study

COLOURS = "fraction of the real change"
BAR_PIXELS, LONG_TITLE = 260, 190  # the bar of colours on screen, and what its title takes
PER_ROW = {"screen": 3, "double": 3, "single": 1}
"""Panels side by side."""
CELL_PIXELS, LEAST_PIXELS = 30, 190
MANY = 8  # concepts; with more, the numbers do not fit their cells on screen
NAME_SIZE, TITLE, BAR, GAP = 7.0, 15.0, 50.0, 8.0  # points
CELL, TALLEST = 15.0, 620.0  # height of a row, and of all panels together, in points
MAX_NAMES = 0.2  # largest fraction of the width for the names of rows
NOT_CLEAR = "∗"
CMAP = LinearSegmentedColormap.from_list("diverging", palette.DIVERGING).with_extremes(bad=palette.UNDEFINED)
COLORSCALE = [
    [number / (len(palette.DIVERGING) - 1), colour] for number, colour in enumerate(palette.DIVERGING)
]
Direction = Literal["towards", "away"]


class LeakageSpec(BenchmarkFigureSpec):
    """What steering each concept in one `direction` does to all, by the ways of one `method` or of all."""

    direction: Direction = "towards"
    method: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Name, direction and, if given, method, judge and distance."""
        return tuple(filter(None, (self.name, self.direction, self.method, self.scorer, self.measure)))


def make_table(study: Study, spec: LeakageSpec) -> pd.DataFrame:
    """The rows of `leakages` for the spec's direction, method, judge and distance."""
    result = spec.load(study)
    if spec.method:
        check_choice("method", spec.method, methods(result))
    return leakages(result, spec.direction, spec.method, spec.scorer, spec.measure)


def leakages(
    result: xr.Dataset, direction: str = "towards", method: str = "", scorer: str = "", measure: str = ""
) -> pd.DataFrame:
    """The rows of `leakage_frame`, with scorer and measure before them."""
    frame = leakage_frame(result, direction, method, scorer, measure)
    frame.insert(0, "scorer", choose("scorer", scorer, scorers(result)))
    frame.insert(1, "measure", measure or str(result["measure"].values[0]))
    return frame


def _panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The ways that have numbers, each with its rows; the first one if none has."""
    every = [(str(way), part) for way, part in table.groupby("way", sort=False)]
    return [(way, part) for way, part in every if part["leakage"].notna().any()] or every[:1]


def _without_numbers(table: pd.DataFrame) -> list[str]:
    shown = [way for way, _ in _panels(table)]
    return [str(way) for way in dict.fromkeys(table["way"]) if way not in shown]


def _square(part: pd.DataFrame, column: str, names: list[str]) -> np.ndarray:
    """A column as (steered, judged)."""
    wide = part.astype(object).pivot(index="concept", columns="judged", values=column)
    return np.array(wide.reindex(index=names, columns=names), dtype=object)


def _concepts(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in dict.fromkeys(table["concept"])]


def level(values: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
    """Places of numbers on the diverging scale: 0 for -1 and less, 1 for 1 and more."""
    return np.clip((values + 1) / 2, 0, 1)


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """A small map for each way; the steered concept's own cell is framed, and an interval that includes 0 is marked."""
    panels, names = _panels(table), _concepts(table)
    across = min(PER_ROW["screen"], len(panels))
    down = -(-len(panels) // across)
    height = max(LEAST_PIXELS, CELL_PIXELS * len(names) + 80)
    figure = make_subplots(
        down,
        across,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[plain(way, LONGEST_NAME) for way, _ in panels],
        horizontal_spacing=0.03,
        vertical_spacing=min(0.3, 34 / (height * down)),
    )
    figure.update_annotations(font={"size": 12})
    for number, (_, part) in enumerate(panels):
        traces = _traces(part, names)
        here = [[number // across + 1] * len(traces), [number % across + 1] * len(traces)]
        figure.add_traces(traces, *here)
    shown = [plain(name, LONGEST_NAME) for name in names]
    places = [place + 0.5 for place in range(len(names))]
    figure.update_xaxes(
        tickvals=places, ticktext=shown, range=[0, len(names)], showgrid=False, fixedrange=True
    )
    figure.update_yaxes(
        tickvals=places, ticktext=shown, range=[len(names), 0], showgrid=False, fixedrange=True
    )
    figure.update_xaxes(title="judged", row=down)
    figure.update_yaxes(title="steered", col=1)
    length = min(height * down, BAR_PIXELS)
    colours = COLOURS if length > LONG_TITLE else "fraction"
    bar: dict[str, Any] = {"title": {"text": colours, "side": "right"}, "thickness": 10, "outlinewidth": 0}
    bar |= {
        "tickvals": [-1, -0.5, 0, 0.5, 1],
        "lenmode": "pixels",
        "len": length,
        "y": 1,
        "yanchor": "top",
    }
    axis = {"colorscale": COLORSCALE, "cmin": -1, "cmax": 1, "colorbar": bar}
    return style(figure, height=height * down, coloraxis=axis).update_layout(margin={"t": 30})


def _traces(part: pd.DataFrame, names: list[str]) -> list[Any]:
    """The cells of a panel, those without a number, the numbers, and the frames of the concepts' own cells."""
    values = _square(part, "leakage", names).astype(float)
    hover = part.assign(
        hover=[
            f"{plain(row['concept'])} steered, {plain(row['judged'])} judged<br>{interval(row, 'leakage')}<br>"
            f"{row['status']}"
            for row in part.to_dict("records")
        ]
    )
    edges = list(range(len(names) + 1))
    common: dict[str, Any] = {
        "x": edges,
        "y": edges,
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "customdata": _square(hover, "hover", names),
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    found: list[Any] = [go.Heatmap(z=values, coloraxis="coloraxis", **common)]
    if np.isnan(values).any():
        grey = [[0, palette.UNDEFINED], [1, palette.UNDEFINED]]
        missing = np.where(np.isnan(values), 0.0, np.nan)
        found.append(go.Heatmap(z=missing, colorscale=grey, showscale=False, **common))
    if len(names) <= MANY:
        found.append(_numbers(values, _square(part, "status", names)))
    return [*found, _frames(len(names))]


def _frames(concepts: int) -> go.Scatter:
    """Frames around the cells of the diagonal, in one line with gaps."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for own in range(concepts):
        left, right, top, bottom = own + 0.02, own + 0.98, own + 0.04, own + 0.96
        xs += [left, right, right, left, left, None]
        ys += [top, top, bottom, bottom, top, None]
    line = {"color": palette.INK, "width": 1.6}
    return go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _numbers(values: Float[np.ndarray, "steered judged"], status: np.ndarray) -> go.Scatter:
    places = list(zip(*np.nonzero(~np.isnan(values)), strict=True))
    dark = palette.is_dark(level(values), palette.DIVERGING)
    return go.Scatter(
        x=[column + 0.5 for _, column in places],
        y=[row + 0.5 for row, _ in places],
        text=[_text(values[place], status[place]) for place in places],
        mode="text",
        textfont={
            "size": 11,
            "color": [palette.ON_DARK if dark[place] else palette.ON_LIGHT for place in places],
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _text(value: float, status: object) -> str:
    return fixed(value) + (NOT_CLEAR if status == "not clear" else "")


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """A small map for each way; the steered concept's own cell is framed."""
    panels, names = _panels(table), _concepts(table)
    room, across = POINTS[width], min(PER_ROW[width], len(panels))
    down = -(-len(panels) // across)
    shown = fitting_names(names, MAX_NAMES * room, NAME_SIZE)
    left = max(width_of(name, NAME_SIZE) for name in shown) + 10
    wide = (room - left - BAR - GAP * (across - 1)) / across
    below = fitting_names(names, MAX_NAMES * room, NAME_SIZE)
    upright = max(width_of(name, NAME_SIZE) for name in below) > wide / len(names) - 3
    foot = (max(width_of(name, NAME_SIZE) for name in below) if upright else NAME_SIZE * LINE) + 8
    cell = max(3.0, min(CELL, (TALLEST / down - TITLE) / len(names)))
    tall = TITLE + cell * len(names) + GAP / 2
    figure = empty_figure(width, tall * down + foot)
    for number, (way, part) in enumerate(panels):
        row, column = divmod(number, across)
        axes = place_axes(figure, left + column * (wide + GAP), row * tall + TITLE, wide, cell * len(names))
        mesh = _draw_panel(axes, part, names, wide / len(names), cell)
        axes.set_title(fitting_names([way], wide, 7.5)[0], fontsize=7.5, pad=3)
        is_last = number + across >= len(panels)
        _name(axes, shown if column == 0 else [], below if is_last else [], upright, cell)
    bar = figure.colorbar(
        mesh, cax=place_axes(figure, room - BAR + 8, TITLE, 6.0, min(tall * down - TITLE, 110.0))
    )
    bar.set_ticks([-1, 0, 1])
    bar.set_label(COLOURS if tall * down > 110 else "fraction", fontsize=NAME_SIZE)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=NAME_SIZE)
    return figure


def _draw_panel(axes: Axes, part: pd.DataFrame, names: list[str], column: float, row: float) -> QuadMesh:
    values, status = _square(part, "leakage", names).astype(float), _square(part, "status", names)
    edges = list(range(len(names) + 1))
    mesh = axes.pcolormesh(
        edges,
        edges,
        np.ma.masked_invalid(values),
        cmap=CMAP,
        vmin=-1,
        vmax=1,
        edgecolors="white",
        linewidth=0.6,
    )
    dark = palette.is_dark(level(values), palette.DIVERGING)
    size = fitting_size(f"−0.00{NOT_CLEAR}", column - 2, min(7.0, row / LINE - 1))
    for place, value in np.ndenumerate(values):
        if size and not np.isnan(value):
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
            colour = palette.ON_DARK if dark[place] else palette.ON_LIGHT
            axes.text(place[1] + 0.5, place[0] + 0.5, _text(value, status[place]), color=colour, **style)
    aside, inside = 0.9 / column, 0.9 / row  # the frame lies within the cell
    for own in range(len(names)):
        corner, wide, high = (own + aside, own + inside), 1 - 2 * aside, 1 - 2 * inside
        axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=palette.INK, linewidth=0.9))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, pad=2)
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    return mesh


def _name(axes: Axes, rows: list[str], columns: list[str], upright: bool, cell: float) -> None:
    size = min(NAME_SIZE, cell / LINE)
    axes.set_yticks([place + 0.5 for place in range(len(rows))], rows, fontsize=size)
    axes.set_xticks(
        [place + 0.5 for place in range(len(columns))],
        columns,
        fontsize=NAME_SIZE,
        rotation=90 if upright else 0,
    )


def write_caption(result: xr.Dataset, table: pd.DataFrame, spec: LeakageSpec) -> str:
    """Describe the cells, the marks and what is hidden."""
    sentences = [
        f"What steering {spec.direction} {'a value' if spec.direction == 'towards' else 'from a value'} of the concept "
        "on the left does to every concept, at equal distance from the unsteered clips: the change in its score, as a "
        "fraction of what its own real prompts do. Framed: the steered concept (1: as much as the real prompt). Other "
        "concepts are scored for the value that the prompt names: below 0, they lose it.",
        benchmark_sample(result, spec.scorer, spec.measure),
        f"{NOT_CLEAR}: the interval includes 0." if (table["status"] == "not clear").any() else "",
        "Grey: no number." if (table["status"] == "undefined").any() else "",
        f"No numbers, so no panel: {', '.join(left_out)}." if (left_out := _without_numbers(table)) else "",
        *deaf_sentences(result, spec.scorer),
    ]
    return " ".join(filter(None, sentences))


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: one row for each way and steered concept, one column for each judged one."""
    named = table.assign(text=[interval(row, "leakage") for row in table.to_dict("records")])
    wide = named.pivot(index=["way", "concept"], columns="judged", values="text")
    order = list(dict.fromkeys(zip(table["way"], table["concept"], strict=True)))
    wide = wide.loc[order, _concepts(table)].rename_axis(columns=None).reset_index()
    return wide.rename(columns={"way": "steering", "concept": "steered"})


FIGURE = Figure(
    name="leakage",
    spec=LeakageSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, table: write_caption(spec.load(study), table, spec),
    latex=print_table,
)
