"""What steering gains against what it changes besides: a curve for each way of steering, in both directions."""

from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PaperFigure
from plotly.subplots import make_subplots

from analyses.steering.effects import UNSTEERED
from dashboards.drawing import palette
from dashboards.drawing.measure import fitting_names, width_of
from dashboards.drawing.paper import POINTS, Width, new_figure, note_in_axes
from dashboards.drawing.screen import legend_below, note_inside, plain, style
from dashboards.figures.base import Figure
from dashboards.figures.dose_response import DASHES, LEGEND_NAME, MARKERS, REAL
from dashboards.figures.specs import BenchmarkFigureSpec, check_choice
from dashboards.numbers import fixed
from dashboards.tables.benchmark import TITLES, curves_frame, method_of, methods
from dashboards.tables.patching import choose, scorers
from dashboards.tables.steering import POSITIVE
from dashboards.wording import benchmark_sample, deaf_sentences, interval, positive_value
from workbench.studies.study import Study

PLACES = {"all": "solid", "localised": "dash"}
"""How curves of ways at all blocks and at the localised ones are drawn; others are dotted."""
PLACE_NAMES = {"all": "all blocks", "localised": "localised blocks", "": "other blocks"}
Across = Literal["distance", "preservation"]
ORIGIN = {"distance": 0.0, "preservation": 1.0}
UP = "change, as a fraction of the real prompt's"
RANDOM = "random vectors"
STAR = {"star": "*"}
LABEL = 120.0  # points beside the axis, for its name
MOST, LEAST = 3.0, -2.0
"""Ends of the axis beyond which intervals are cut off: ratios of a small change have wide ones."""


class AlignmentPreservationSpec(BenchmarkFigureSpec):
    """Change of a concept's score against the distance from the unsteered clips, or against what is kept of them.

    Of all methods, or one `method`; the concept is the result's first by default.
    """

    concept: str = ""
    method: str = ""
    across: Across = "distance"

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and, if given, concept, method, judge and distance, and what is across."""
        across = "" if self.across == "distance" else self.across
        return tuple(filter(None, (self.name, self.concept, self.method, self.scorer, self.measure, across)))


def make_table(study: Study, spec: AlignmentPreservationSpec) -> pd.DataFrame:
    """The rows of `alignment_frame` for the spec's concept, method, judge and distance."""
    result = spec.load(study)
    if spec.concept:
        check_choice("concept", spec.concept, result["concept"].values.tolist())
    if spec.method:
        check_choice("method", spec.method, methods(result))
    return alignment_frame(result, spec.concept, spec.method, spec.scorer, spec.measure)


def alignment_frame(
    result: xr.Dataset, concept: str = "", method: str = "", scorer: str = "", measure: str = ""
) -> pd.DataFrame:
    """The rows of `curves_frame`, of one method or all, with scorer, measure and concept before them.

    Random vectors stay with any method.
    """
    shown = concept or str(result["concept"].values[0])
    frame = curves_frame(result, shown, scorer, measure)
    if method:
        frame = frame[(frame["role"] != "cell") | (frame["way"].map(method_of) == method)]
    frame.insert(0, "scorer", choose("scorer", scorer, scorers(result)))
    frame.insert(1, "measure", measure or str(result["measure"].values[0]))
    frame.insert(2, "concept", shown)
    return frame.reset_index(drop=True)


def _parts(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The directions with their rows."""
    return [(str(name), part) for name, part in table.groupby("direction", sort=False)]


def _curves(part: pd.DataFrame, across: Across) -> list[tuple[str, pd.DataFrame]]:
    """The ways of steering with the points that have both numbers, in order of the size of their strength."""
    cells = part[part["role"] == "cell"].dropna(subset=["ratio", across])
    return [
        (str(way), points.sort_values("strength", key=abs, kind="stable"))
        for way, points in cells.groupby("way", sort=False)
    ]


def _from_start(points: pd.DataFrame, across: Across) -> pd.DataFrame:
    """A curve with the unsteered run before it; cut where an interval's end is far beyond the real prompt."""
    start = pd.DataFrame([{across: ORIGIN[across], "ratio": 0.0, "ratio_lo": 0.0, "ratio_hi": 0.0}])
    path = pd.concat([start, points[[across, "ratio", "ratio_lo", "ratio_hi"]]], ignore_index=True)
    ends = path[["ratio_lo", "ratio_hi"]]
    return path.assign(**ends.clip(LEAST - 1, MOST + 1).to_dict("list"))


def _band(points: pd.DataFrame, across: Across) -> pd.DataFrame:
    """Where random vectors of one place lie at each strength: from the lowest end of their intervals to the highest."""
    known = points.dropna(subset=["ratio_lo", "ratio_hi", across])
    groups = known.groupby(known["strength"].abs().round(9))
    found = groups.agg({across: "mean", "ratio": "mean", "ratio_lo": "min", "ratio_hi": "max"})
    return _from_start(found.reset_index(drop=True), across)


def _bands(part: pd.DataFrame, across: Across) -> list[pd.DataFrame]:
    nulls = part[part["role"] == "null"]
    bands = [_band(points, across) for _, points in nulls.groupby("place", sort=False)]
    return [band for band in bands if len(band) > 1]


def _looks(table: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """The colour and the number of the marker of each method."""
    names = dict.fromkeys(method_of(way) for way in table["way"][table["role"] == "cell"])
    colours = len(palette.LINES)
    return {
        name: (palette.LINES[number % colours], (number + number // colours) % len(MARKERS))
        for number, name in enumerate(names)
    }


def _dash(place: str) -> str:
    return PLACES.get(place, "dot")


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: the real prompt, 0 and all points are in it, and intervals as far as they are not extreme."""
    values = table[table["role"] == "cell"]
    points = values["ratio"].to_numpy(float)
    ends = values[["ratio_lo", "ratio_hi"]].to_numpy(float).clip(LEAST, MOST).ravel()
    found = np.concatenate([points, ends, [0.0, 1.0]])
    found = found[~np.isnan(found)]
    margin = 0.06 * float(np.ptp(found))
    return float(found.min() - margin), float(found.max() + margin)


def _title(across: Across, measure: str) -> str:
    return {
        "distance": f"{measure} distance from the unsteered clip",
        "preservation": f"preservation ({measure})",
    }[across]


def _common(part: pd.DataFrame) -> float:
    """The distance at which ways are compared; NaN where there are no curves."""
    return float("nan") if _reason(part) else float(part["common_distance"].iloc[0])


def _reason(part: pd.DataFrame) -> str:
    """Why a direction has no curves; "" if it has."""
    return str(part["status"].iloc[0])


def draw_screen(table: pd.DataFrame, across: Across = "distance", selected: str = "") -> go.Figure:
    """Curves in a panel for each direction; the point of the `selected` arm is ringed, and a point's customdata starts
    with its arm and direction."""
    parts, looks = _parts(table), _looks(table)
    figure = make_subplots(
        1,
        len(parts),
        shared_yaxes=True,
        subplot_titles=[TITLES[name] for name, _ in parts],
        horizontal_spacing=0.05,
        x_title=plain(_title(across, str(table["measure"].iloc[0]))),
    )
    figure.update_annotations(font={"size": 12})
    named: set[str] = set()
    for column, (direction, part) in enumerate(parts, start=1):
        traces: list[go.Scatter] = [_area(band, across, palette.MUTED, 0.25) for band in _bands(part, across)]
        for way, points in _curves(part, across):
            colour, marker = looks[method_of(way)]
            path = _from_start(points, across)
            line = {"color": colour, "width": 1.6, "dash": _dash(str(points["place"].iloc[0]))}
            first = method_of(way) not in named
            named.add(method_of(way))
            traces += [
                _area(path, across, colour, 0.1),
                go.Scatter(
                    x=path[across],
                    y=path["ratio"],
                    mode="lines",
                    line=line,
                    hoverinfo="skip",
                    showlegend=False,
                ),
                _points(points, direction, across, colour, marker, selected, first),
            ]
        figure.add_traces(traces, [1] * len(traces), [column] * len(traces))
        at = {"row": 1, "col": column}
        _add_marks(figure, part, across, at)
        figure.update_xaxes(fixedrange=True, **at)
    keys = _place_keys(table)
    for name, dash in keys.items():
        line = {"color": palette.MUTED, "width": 1.6, "dash": dash}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name, row=1, col=1)
    figure.update_yaxes(fixedrange=True, range=list(_limits(table)))
    figure.update_yaxes(title=UP.replace(", as", ",<br>as"), row=1, col=1)
    if across == "preservation":
        figure.update_xaxes(range=[1.04, -0.04])
    room, legend = legend_below(len(named) + len(keys) + 1)
    styled = style(figure, height=360 + room, clickmode="event", hovermode="closest").update_layout(legend)
    return styled.update_layout(margin={"t": 26})


def _area(path: pd.DataFrame, across: Across, colour: str, opacity: float) -> go.Scatter:
    return go.Scatter(
        x=[*path[across], *path[across][::-1]],
        y=[*path["ratio_hi"], *path["ratio_lo"][::-1]],
        fill="toself",
        fillcolor=colour,
        opacity=opacity,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _points(
    points: pd.DataFrame,
    direction: str,
    across: Across,
    colour: str,
    marker: int,
    selected: str,
    in_legend: bool,
) -> go.Scatter:
    rows = points.to_dict("records")
    chosen = [row["arm"] == selected for row in rows]
    name = method_of(str(points["way"].iloc[0]))
    return go.Scatter(
        x=points[across],
        y=points["ratio"],
        mode="markers",
        name=plain(name, LEGEND_NAME),
        legendgroup=plain(name),
        showlegend=in_legend,
        marker={
            "symbol": list(MARKERS)[marker],
            "opacity": 1,
            "size": [14 if one else 8 for one in chosen],
            "color": colour,
            "line": {
                "width": [3 if one else 0 for one in chosen],
                "color": [palette.PLANTED if one else colour for one in chosen],
            },
        },
        customdata=[[row["arm"], direction, plain(row["arm"]), _hover(row)] for row in rows],
        hovertemplate="<b>%{customdata[2]}</b><br>%{customdata[3]}<extra></extra>",
    )


def _hover(row: dict[Hashable, Any]) -> str:
    return (
        f"of the real prompt's change {interval(row, 'ratio')}<br>distance {interval(row, 'distance')}<br>"
        f"preservation {interval(row, 'preservation')}"
    )


def _add_marks(figure: go.Figure, part: pd.DataFrame, across: Across, at: dict[str, int]) -> None:
    """The real prompt, 0, the distance at which ways are compared, and why there are no curves."""
    figure.add_hline(y=0, line={"color": palette.MUTED, "width": 1, "dash": "dot"}, **at)
    real = part[part["arm"] == POSITIVE].dropna(subset=["ratio"])
    figure.add_scatter(
        x=real[across],
        y=real["ratio"],
        mode="markers",
        marker={"symbol": "star", "size": 14, "color": palette.INK, "line": {"width": 1, "color": "white"}},
        name=REAL,
        showlegend=at["col"] == 1,
        customdata=[[None, None, REAL, _hover(row)] for row in real.to_dict("records")],
        hovertemplate="<b>%{customdata[2]}</b><br>%{customdata[3]}<extra></extra>",
        **at,
    )
    where = _common(part)
    if across == "distance" and not np.isnan(where):
        line = {"color": palette.MUTED, "width": 1, "dash": "dash"}
        figure.add_vline(x=where, line=line, **at)
    if reason := _reason(part):
        note_inside(figure, reason, **at)


def _place_keys(table: pd.DataFrame) -> dict[str, str]:
    """The dashes of the places that the table has, by their names."""
    places = dict.fromkeys(table["place"][table["role"] == "cell"])
    return {PLACE_NAMES.get(place, PLACE_NAMES[""]): _dash(place) for place in places}


def draw_paper(table: pd.DataFrame, across: Across, width: Width) -> PaperFigure:
    """Curves with their intervals, in a panel for each direction: side by side or, in one column, stacked."""
    parts, looks, keys = _parts(table), _looks(table), _place_keys(table)
    names = fitting_names([*looks, RANDOM, REAL, *keys], POINTS[width] - 60, 8.0)
    columns = max(1, int(POINTS[width] // (max(width_of(name, 8.0) for name in names) + 36)))
    shape = (1, len(parts)) if width == "double" else (len(parts), 1)
    figure = new_figure(width, 2.3 * shape[0] + 0.16 * -(-len(names) // columns))
    grid = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
    for axes, (direction, part) in zip(grid, parts, strict=True):
        axes.set_title(direction)
        for band in _bands(part, across):
            axes.fill_between(
                band[across],
                band["ratio_lo"],
                band["ratio_hi"],
                color=palette.MUTED,
                alpha=0.25,
                linewidth=0,
            )
        for way, points in _curves(part, across):
            _draw_curve(axes, points, across, *looks[method_of(way)])
        _draw_marks(axes, part, across)
        axes.set_xlabel(
            fitting_names(
                [_title(across, str(table["measure"].iloc[0]))], 0.8 * POINTS[width] / shape[1], 8.0
            )[0],
            labelpad=1,
        )
        axes.set_ylim(*_limits(table))
        if across == "preservation":
            axes.set_xlim(1.04, -0.04)
    for axes in grid if width == "single" else grid[:1]:
        axes.set_ylabel(UP.replace(", as", ",\nas"))
    _add_legend(figure, grid[0], names, list(looks.values()), list(keys.values()), columns)
    return figure


def _draw_curve(axes: Axes, points: pd.DataFrame, across: Across, colour: str, marker: int) -> None:
    path = _from_start(points, across)
    axes.fill_between(path[across], path["ratio_lo"], path["ratio_hi"], color=colour, alpha=0.1, linewidth=0)
    dash = DASHES[_dash(str(points["place"].iloc[0]))]
    axes.plot(path[across], path["ratio"], color=colour, linewidth=0.9, linestyle=dash)
    axes.plot(
        points[across],
        points["ratio"],
        color=colour,
        marker=list(MARKERS.values())[marker],
        linestyle="",
        markersize=3.2,
    )


def _draw_marks(axes: Axes, part: pd.DataFrame, across: Across) -> None:
    axes.axhline(0, color=palette.MUTED, linestyle=":", linewidth=0.8)
    real = part[part["arm"] == POSITIVE].dropna(subset=["ratio"])
    axes.plot(real[across], real["ratio"], "*", color=palette.INK, markersize=7, zorder=4)
    where = _common(part)
    if across == "distance" and not np.isnan(where):
        axes.axvline(where, color=palette.MUTED, linestyle="--", linewidth=0.8)
    if reason := _reason(part):
        words = reason.replace(": ", ":\n", 1).replace(" the real", "\nthe real")
        note_in_axes(axes, words, 7.0)


def _add_legend(
    figure: PaperFigure,
    axes: Axes,
    names: list[str],
    looks: list[tuple[str, int]],
    dashes: list[str],
    columns: int,
) -> None:
    """Methods by colour and marker, then random vectors, the real prompt, and places by dash."""
    labels = iter(names)
    for colour, marker in looks:
        axes.plot(
            [], [], color=colour, marker=list(MARKERS.values())[marker], markersize=3.2, label=next(labels)
        )
    axes.fill_between([], [], [], color=palette.MUTED, alpha=0.25, linewidth=0, label=next(labels))
    axes.plot([], [], "*", color=palette.INK, markersize=7, label=next(labels))
    for dash in dashes:
        axes.plot([], [], color=palette.MUTED, linestyle=DASHES[dash], linewidth=0.9, label=next(labels))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, handlelength=2.2)


def write_caption(
    study: Study, result: xr.Dataset, table: pd.DataFrame, spec: AlignmentPreservationSpec
) -> str:
    """Describe the curves, the bands, the marks and what is hidden."""
    concept = str(table["concept"].iloc[0])
    value = positive_value(study, result, concept)
    of_distance = (
        "the distance of the steered clips from the unsteered ones of the same noise"
        if spec.across == "distance"
        else "how much of the unsteered clips is kept (1: nothing changes; 0: as far from them as the real prompt's "
        "clips, or further)"
    )
    sentences = [
        f"Change in the score for {concept} made by steering towards {value} and away from it, as a fraction of the "
        f"change that the real prompt makes (0: unsteered, 1: real prompt, star), against {of_distance}.",
        benchmark_sample(result, spec.scorer, spec.measure),
        "Each curve is a way of steering at strengths of growing size, with its interval shaded.",
        _places_sentence(table),
        _random_sentence(table),
        _common_sentence(table) if spec.across == "distance" else "",
        *deaf_sentences(result, spec.scorer, concept),
    ]
    return " ".join(filter(None, sentences))


def _places_sentence(table: pd.DataFrame) -> str:
    words = {"solid": "Solid", "dash": "dashed", "dot": "dotted"}
    keys = [f"{words[dash]}: {name}" for name, dash in _place_keys(table).items()]
    keys.sort(key=lambda key: [*words.values()].index(key.partition(":")[0]))
    return f"{'; '.join(keys).capitalize()}." if keys else ""


def _random_sentence(table: pd.DataFrame) -> str:
    nulls = table[table["role"] == "null"]
    if nulls.empty:
        return "There are no random vectors to compare with."
    n = int(nulls.groupby(["direction", "place"])["way"].nunique().max())
    return (
        f"Grey: from the lowest end of the intervals of {n} random vector{'s' if n > 1 else ''} to the highest, at the "
        "strengths and the blocks of CAA."
    )


def _common_sentence(table: pd.DataFrame) -> str:
    ends = [
        f"{fixed(_common(part))} ({direction})"
        for direction, part in _parts(table)
        if not np.isnan(_common(part))
    ]
    return f"Dashed line: the distance at which methods are ranked, {' and '.join(ends)}." if ends else ""


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: one row for each way of steering and strength."""
    shown = table[((table["role"] == "cell") | (table["arm"] == POSITIVE)) & (table["arm"] != UNSTEERED)]
    rows = shown.to_dict("records")
    is_real = shown["arm"] == POSITIVE
    return pd.DataFrame(
        {
            "direction": shown["direction"].tolist(),
            "steering": shown["way"].where(~is_real, REAL).tolist(),
            "strength": [
                "" if row["arm"] == POSITIVE else f"{row['strength']:g}".replace("-", "−") for row in rows
            ],
            "of the real prompt [95 %]": [interval(row, "ratio") for row in rows],
            "distance [95 %]": [interval(row, "distance") for row in rows],
            "preservation [95 %]": [interval(row, "preservation") for row in rows],
        }
    )


FIGURE = Figure(
    name="alignment-preservation",
    spec=AlignmentPreservationSpec,
    table=make_table,
    screen=lambda _study, spec, table: draw_screen(table, spec.across),
    paper=lambda _study, spec, table: draw_paper(table, spec.across, spec.width),
    caption=lambda study, spec, table: write_caption(study, spec.load(study), table, spec),
    latex=print_table,
)
