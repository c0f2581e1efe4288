"""Methods of steering at equal distance, the best first: what part of the real prompt's change each makes."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.figure import Figure as PaperFigure
from plotly.subplots import make_subplots

from analyses.evaluation.benchmark_spec import is_control
from dashboards.drawing import palette
from dashboards.drawing.measure import every, fitting_names, width_of, wrapped
from dashboards.drawing.paper import POINTS, Width, new_figure, note_in_axes
from dashboards.drawing.screen import note_inside, plain, plain_lines, style
from dashboards.figures.base import Figure
from dashboards.figures.ladder import LONGEST_LABEL, NAME_SIZE, ROW_INCHES, ROW_PIXELS, TALLEST, draw_rows
from dashboards.figures.specs import BenchmarkFigureSpec, check_choice
from dashboards.numbers import fixed, percent, span
from dashboards.tables.benchmark import TITLES, methods_frame
from dashboards.tables.patching import choose, scorers
from dashboards.tables.steering import CLEAR
from dashboards.wording import benchmark_sample, deaf_sentences, distance_sentence, interval, positive_value
from workbench.studies.study import Study

ALL = "all concepts"
AXIS = "fraction of the real prompt's change"
SHORT_AXIS = "part of the real change"
NAME_ROOM = {"double": 0.26, "single": 0.4}  # of the width, for the names on paper
MOST, LEAST = 3.0, -2.0
"""Ends of the axis beyond which intervals are cut off: ratios of a small change have wide ones."""


class MethodRankingSpec(BenchmarkFigureSpec):
    """Methods at equal distance, of one concept or, without one, in the mean over those that the judge can hear."""

    concept: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and, if given, concept, judge and distance."""
        return tuple(filter(None, (self.name, self.concept, self.scorer, self.measure)))


def make_table(study: Study, spec: MethodRankingSpec) -> pd.DataFrame:
    """The rows of `ranking` for the spec's concept, judge and distance."""
    result = spec.load(study)
    if spec.concept:
        check_choice("concept", spec.concept, result["concept"].values.tolist())
    return ranking(result, spec.concept, spec.scorer, spec.measure)


def ranking(result: xr.Dataset, concept: str = "", scorer: str = "", measure: str = "") -> pd.DataFrame:
    """The rows of `methods_frame`, with scorer, measure and concept before them."""
    frame = methods_frame(result, concept, scorer, measure)
    frame.insert(0, "scorer", choose("scorer", scorer, scorers(result)))
    frame.insert(1, "measure", measure or str(result["measure"].values[0]))
    frame.insert(2, "concept", concept or ALL)
    return frame


def _parts(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The directions with the ways that have a number in one of them (all if none has), in the order of the table.

    The index is the row's place.
    """
    known = table.loc[table["ratio"].notna(), "way"]
    ways = list(dict.fromkeys(table["way"] if known.empty else known))
    return [
        (str(name), part.set_index("way", drop=False).reindex(ways).reset_index(drop=True))
        for name, part in table.groupby("direction", sort=False)
    ]


def _left_out(table: pd.DataFrame) -> list[str]:
    """The ways without a row; see `_parts`."""
    return [way for way in dict.fromkeys(table["way"]) if way not in set(_parts(table)[0][1]["way"])]


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: from 0 to 1, or further if a number is; intervals only as far as they are not extreme."""
    ends = table[["ratio_lo", "ratio_hi", "band_lo", "band_hi"]].to_numpy(float).clip(LEAST, MOST).ravel()
    values = np.concatenate([table["ratio"].to_numpy(float), ends, [0.0, 1.0]])
    values = values[~np.isnan(values)]
    margin = 0.04 * (values.max() - values.min())
    return float(values.min() - margin), float(values.max() + margin)


def _reason(part: pd.DataFrame) -> str:
    return str(part["status"].iloc[0])


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """A row for each way, and a panel for each direction; a point's customdata starts with its way."""
    parts = _parts(table)
    figure = make_subplots(
        1,
        len(parts),
        shared_yaxes=True,
        subplot_titles=[TITLES[name] for name, _ in parts],
        horizontal_spacing=0.07,
        x_title=AXIS,
    )
    figure.update_annotations(font={"size": 12})
    for column, (_, part) in enumerate(parts, start=1):
        at = {"row": 1, "col": column}
        for row in part[part["band_lo"].notna()].itertuples():
            figure.add_shape(
                type="rect",
                x0=row.band_lo,
                x1=row.band_hi,
                y0=row.Index - 0.36,
                y1=row.Index + 0.36,
                fillcolor=palette.MUTED,
                opacity=0.28,
                line={"width": 0},
                layer="below",
                **at,
            )
        for place, dash in ((0, "dot"), (1, "dash")):
            figure.add_vline(x=place, line={"color": palette.MUTED, "width": 1, "dash": dash}, **at)
        figure.add_trace(_points(part.dropna(subset=["ratio"])), **at)
        if reason := _reason(part):
            note_inside(figure, reason, **at)
    names = parts[0][1]["way"].tolist()
    figure.update_xaxes(range=list(_limits(table)), fixedrange=True)
    figure.update_yaxes(range=[len(names) - 0.4, -0.6], showgrid=False, fixedrange=True)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[plain_lines(name, LONGEST_LABEL) for name in names],
        row=1,
        col=1,
    )
    styled = style(figure, height=100 + ROW_PIXELS * len(names), clickmode="event", hovermode="closest")
    return styled.update_layout(margin={"t": 26, "b": 54})


def _points(some: pd.DataFrame) -> go.Scatter:
    rows, colour = some.to_dict("records"), palette.SEQUENTIAL[5]
    return go.Scatter(
        x=some["ratio"],
        y=some.index,
        mode="markers",
        marker={
            "size": 10,
            "opacity": 1,
            "color": [colour if row["verdict"] == CLEAR else "white" for row in rows],
            "line": {"width": 2, "color": colour},
        },
        error_x={
            "array": some["ratio_hi"] - some["ratio"],
            "arrayminus": some["ratio"] - some["ratio_lo"],
            "color": colour,
            "thickness": 1.6,
            "width": 4,
        },
        customdata=[[row["way"], plain(row["way"]), _hover(row)] for row in rows],
        hovertemplate="<b>%{customdata[1]}</b><br>%{customdata[2]}<extra></extra>",
    )


def _hover(row: dict[Hashable, Any]) -> str:
    return (
        f"of the real prompt's change {interval(row, 'ratio', 3)}<br>random vectors {_band(row)}<br>"
        f"rank {interval(row, 'rank', 1)}, first in {percent(row['first'], 0)} of resamples<br>{row['verdict']}"
    )


def _band(row: dict[Hashable, Any]) -> str:
    return "none" if np.isnan(row["band_lo"]) else span(row["band_lo"], row["band_hi"])


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """A row for each way, and a panel for each direction."""
    parts = _parts(table)
    names = fitting_names(parts[0][1]["way"].tolist(), NAME_ROOM[width] * POINTS[width], NAME_SIZE)
    row = min(ROW_INCHES, TALLEST / len(names))
    figure = new_figure(width, 0.75 + row * len(names))
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False).ravel()
    one_in = every(NAME_SIZE, 72 * row)
    for axes, (direction, part) in zip(grid, parts, strict=True):
        draw_rows(axes, part, "ratio", "verdict")
        axes.set_title(direction)
        axes.set_xlim(*_limits(table))
        axes.set_yticks(range(0, len(names), one_in), names[::one_in], fontsize=NAME_SIZE)
        if reason := _reason(part):
            room = 0.8 * (POINTS[width] - max(width_of(name, NAME_SIZE) for name in names)) / len(parts) - 8
            words = "\n".join(wrapped(reason, room, 6.0))
            note_in_axes(axes, words, 6.0)
    grid[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel(AXIS if width == "double" else SHORT_AXIS, fontsize=8)
    return figure


def write_caption(study: Study, result: xr.Dataset, table: pd.DataFrame, spec: MethodRankingSpec) -> str:
    """Describe the rows, the order, the bands and what is hidden."""
    if spec.concept:
        about = (
            f"Change in the score for {spec.concept} made by steering towards "
            f"{positive_value(study, result, spec.concept)} and away from it"
        )
    else:
        about = "Change in the steered concept's score made by steering towards a value and away from it"
    at = f"at equal {table['measure'].iloc[0]} distance from the unsteered clips"
    sentences = [
        f"{about}, {at}, as a fraction of the change that the real prompt makes (0: unsteered, dashed 1: real prompt).",
        "" if spec.concept else f"Mean over concepts that the judge can hear: {_counts(table)}.",
        benchmark_sample(result, spec.scorer, spec.measure),
        distance_sentence(result, spec.measure, spec.concept),
        "Ordered by the mean over the directions.",
        _control_sentence(table),
        _hollow_sentence(table),
        f"Not that far from the unsteered clips, so no row: {', '.join(left_out)}."
        if (left_out := _left_out(table))
        else "",
        *deaf_sentences(result, spec.scorer, spec.concept),
    ]
    return " ".join(filter(None, sentences))


def _control_sentence(table: pd.DataFrame) -> str:
    if not any(is_control(way) for way in _parts(table)[0][1]["way"]):
        return ""
    return "Last, methods at all other blocks: controls, which neither limit the distance nor have a rank."


def _counts(table: pd.DataFrame) -> str:
    counts = {name: int(part["n"].iloc[0]) for name, part in _parts(table)}
    return " and ".join(f"{n} ({name})" for name, n in counts.items())


def _hollow_sentence(table: pd.DataFrame) -> str:
    if table["ratio"].isna().all():
        return ""
    if table["band_lo"].isna().all():
        return "Hollow: the interval includes 0."
    return (
        "Hollow: the interval includes 0, or the point lies where random vectors at the same blocks do (grey: the "
        "95 % prediction interval of one more)."
    )


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: one row for each way of steering that has numbers, with the columns of both directions."""
    printed = pd.DataFrame({"": _parts(table)[0][1]["way"].tolist()})
    for direction, part in _parts(table):
        rows = part.to_dict("records")
        printed[f"{direction} [95 %]"] = [interval(row, "ratio") for row in rows]
        if part["band_lo"].notna().any():
            printed[f"random, {direction}"] = [_band(row) for row in rows]
        printed[f"rank, {direction}"] = [
            "–"
            if np.isnan(row["rank"])
            else f"{fixed(row['rank'], 1)} {span(row['rank_lo'], row['rank_hi'], 1)}"
            for row in rows
        ]
    return printed


FIGURE = Figure(
    name="method-ranking",
    spec=MethodRankingSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, table: write_caption(study, spec.load(study), table, spec),
    latex=print_table,
)
