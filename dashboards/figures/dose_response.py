"""How far steering moves a score, by strength: a line for each way of steering, with interval and null band."""

from collections import Counter
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PaperFigure

from analyses.statistics import ALPHA, too_few_pairs
from analyses.steering.effects import UNSTEERED
from cache.wording import counted
from dashboards.drawing import palette
from dashboards.drawing.measure import fitting_names, width_of
from dashboards.drawing.paper import POINTS, Width, new_figure
from dashboards.drawing.screen import LONGEST_NAME, legend_below, plain, style
from dashboards.figures.base import Figure
from dashboards.figures.specs import SteeringFigureSpec, check_choice
from dashboards.names import shortened
from dashboards.numbers import compared_p, fixed, p_value
from dashboards.tables.patching import UNTESTED, choose, scorers
from dashboards.tables.steering import CLEAR, POSITIVE, doses_frame, steered_ends
from dashboards.wording import band, confidence, from_to, interval, steering_notes, steering_sample
from workbench.studies.study import Study

REAL, START = "real prompt", "unsteered"
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "pentagon": "p",
}
"""Names of the markers in Plotly and in matplotlib, in the order of the ways of steering."""
DASHES = {"solid": "-", "dash": "--", "dot": ":"}
"""Names of the dashes in both, for the first ways that use all colours, the next, and the rest."""
APART, SPREAD = 0.01, 0.1
"""Distance between points of two ways at the same strength, and between the first and last; of all strengths' range."""
NAMED = len(palette.LINES) * len(DASHES)
"""Ways that the legend on paper names; further ones would look like others."""
LEGEND_NAME = 44  # characters; the names of the ladder's rungs have fewer
LABEL = 130.0  # points beside the axis, for its name
SHOWN = ["effect", "effect_lo", "effect_hi", "null_lo", "null_hi"]
NUMBERS = ["score", "effect", "effect_lo", "effect_hi", "p", "p_adjusted", "null_lo", "null_hi"]


class DoseResponseSpec(SteeringFigureSpec):
    """What each strength of steering does to a concept, by default the steered one."""

    concept: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and, if given, concept and scorer."""
        return tuple(filter(None, (self.name, self.concept, self.scorer)))


def make_table(study: Study, spec: DoseResponseSpec) -> pd.DataFrame:
    """The rows of `response_frame` for the spec's concept and scorer."""
    result = spec.load(study)
    if spec.concept:
        check_choice("concept", spec.concept, result["concept"].values.tolist())
    return response_frame(result, spec.concept, spec.scorer)


def response_frame(result: xr.Dataset, concept: str = "", scorer: str = "") -> pd.DataFrame:
    """One row for the unsteered run, for the real prompt, and for each way of steering at each strength.

    Columns: scorer, concept, way, arm, strength (none for the real prompt), score, effect (the change from the
    unsteered run) with its interval, p, p_adjusted, null band, steered_change (the real prompt's effect on the steered
    concept, which the axis has room for, so that leakage is seen on the scale of the change that is wanted), status.
    """
    doses = doses_frame(result, scorer)
    shown = concept or str(result.attrs["concept"])
    frame = doses[(doses["concept"] == shown) & (doses["role"] != "null")].reset_index(drop=True)
    names = {POSITIVE: REAL, UNSTEERED: START}
    is_run = frame["role"] == "run"
    frame["way"] = frame["way"].where(~is_run, frame["arm"].map(names))
    frame["strength"] = frame["strength"].where(frame["arm"] != POSITIVE)
    frame.insert(0, "scorer", choose("scorer", scorer, scorers(result)))
    real = doses[doses["own"] & (doses["arm"] == POSITIVE)]
    frame["steered_change"] = float(real["effect"].iloc[0])
    return frame[["scorer", "concept", "way", "arm", "strength", *NUMBERS, "steered_change", "status"]]


def _lines(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The ways of steering with their points, in order of strength."""
    cells = table[~table["arm"].isin((POSITIVE, UNSTEERED))]
    return [(str(way), part.sort_values("strength")) for way, part in cells.groupby("way", sort=False)]


def _with_start(part: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Strengths and columns of a line, with the unsteered run, where all are 0."""
    start = pd.DataFrame([{"strength": 0.0, **dict.fromkeys(columns, 0.0)}])
    both = pd.concat([part[["strength", *columns]], start], ignore_index=True)
    return both.dropna().sort_values("strength", kind="stable")


def _path(part: pd.DataFrame, offset: float) -> pd.DataFrame:
    """The line through a way's points, moved sideways like them, and the unsteered run."""
    return _with_start(part.assign(strength=part["strength"] + offset), ["effect"])


def _offsets(table: pd.DataFrame, n: int) -> np.ndarray:
    """How far the points of each way are moved sideways, so that none hides another."""
    reach = table["strength"].max() - table["strength"].min()
    return min(APART, SPREAD / max(n, 1)) * float(reach) * (np.arange(n) - (n - 1) / 2)


def _whole(table: pd.DataFrame) -> float:
    """The change that the real prompt makes."""
    return float(table.loc[table["arm"] == POSITIVE, "effect"].iloc[0])


def _concept(table: pd.DataFrame) -> str:
    return str(table["concept"].iloc[0])


def _axis_title(concept: str) -> str:
    return f"change in score for {concept}"


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: all numbers fit, and the real prompt's effect on the steered concept."""
    values = table[[*SHOWN, "steered_change"]].to_numpy(float)
    values = np.append(values[~np.isnan(values)], 0.0)
    margin = 0.06 * float(np.ptp(values)) or 1.0
    return float(values.min() - margin), float(values.max() + margin)


def draw_screen(table: pd.DataFrame, selected: str = "") -> go.Figure:
    """Lines over strength; the point of the `selected` arm is ringed, and a point's customdata starts with its arm."""
    figure, lines = go.Figure(), _lines(table)
    offsets = _offsets(table, len(lines))
    for index, (way, part) in enumerate(lines):
        colour = palette.LINES[index % len(palette.LINES)]
        _add_band(figure, part, colour)
        if len(part) > 1:
            path = _path(part, float(offsets[index]))
            figure.add_scatter(
                x=path["strength"],
                y=path["effect"],
                mode="lines",
                line={"color": colour, "width": 1.5, "dash": _dash(index, list(DASHES))},
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_trace(_points(way, part, index, float(offsets[index]), selected))
    figure.add_scatter(
        x=[0.0],
        y=[0.0],
        mode="markers",
        marker={
            "color": palette.MUTED,
            "size": 8,
            "symbol": "x-thin",
            "line": {"width": 2, "color": palette.MUTED},
        },
        hovertemplate=f"{START}<extra></extra>",
        name=START,
    )
    figure.add_hline(y=0, line={"color": palette.MUTED, "width": 1, "dash": "dot"})
    if not np.isnan(_whole(table)):
        figure.add_hline(
            y=_whole(table),
            line={"color": palette.MUTED, "width": 1.5, "dash": "dash"},
            annotation={"text": f"{REAL} {fixed(_whole(table))}", "font": {"size": 11}},
            annotation_position="top left",
        )
    strengths = sorted(set(table["strength"].dropna()))
    figure.update_xaxes(title="strength", tickvals=strengths, fixedrange=True)
    figure.update_yaxes(
        title=plain(_axis_title(shortened(_concept(table), LONGEST_NAME))),
        fixedrange=True,
        range=list(_limits(table)),
    )
    room, legend = legend_below(len(lines) + 1)
    return style(figure, height=360 + room, clickmode="event", hovermode="closest").update_layout(legend)


def _dash(index: int, dashes: list[str]) -> str:
    return dashes[min(index // len(palette.LINES), len(dashes) - 1)]


def _marker(index: int) -> int:
    """Return the number of a way's marker, which is another one for each way of a colour."""
    return (index + index // len(palette.LINES)) % len(MARKERS)


def _add_band(figure: go.Figure, part: pd.DataFrame, colour: str) -> None:
    """The null band of a way of steering, shaded; none if it has no random vectors."""
    edges = _with_start(part, ["null_lo", "null_hi"])
    if len(edges) < 2:
        return
    figure.add_scatter(
        x=[*edges["strength"], *edges["strength"][::-1]],
        y=[*edges["null_hi"], *edges["null_lo"][::-1]],
        fill="toself",
        fillcolor=colour,
        opacity=0.16,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _points(way: str, part: pd.DataFrame, index: int, offset: float, selected: str) -> go.Scatter:
    colour, symbol = palette.LINES[index % len(palette.LINES)], list(MARKERS)[_marker(index)]
    part = part.dropna(subset=["effect"])
    rows = part.to_dict("records")
    chosen = [row["arm"] == selected for row in rows]
    return go.Scatter(
        x=part["strength"] + offset,
        y=part["effect"],
        mode="markers",
        name=plain(way, LEGEND_NAME),
        marker={
            "symbol": symbol,
            "size": [15 if one else 10 for one in chosen],
            "opacity": 1,
            "color": [colour if row["status"] == CLEAR else "white" for row in rows],
            "line": {
                "width": [3 if one else 1.8 for one in chosen],
                "color": [palette.PLANTED if one else colour for one in chosen],
            },
        },
        error_y={
            "array": part["effect_hi"] - part["effect"],
            "arrayminus": part["effect"] - part["effect_lo"],
            "color": colour,
            "thickness": 1.2,
            "width": 3,
        },
        customdata=[[row["arm"], plain(row["arm"]), hover(row)] for row in rows],
        hovertemplate="<b>%{customdata[1]}</b><br>%{customdata[2]}<extra></extra>",
    )


def hover(row: dict[Hashable, Any]) -> str:
    """What a dose's point or cell shows on hover: change, test, null band."""
    n_tested = f"p {compared_p(row['p'])}, adjusted {p_value(row['p_adjusted'])}: {row['status']}"
    return f"change {interval(row, 'effect', 3)}<br>{n_tested}<br>null band {band(pd.Series(row))}"


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """Lines over strength, with intervals; hollow where not significant or inside the null band."""
    lines = _lines(table)
    more = [f"and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    names = fitting_names([*(way for way, _ in lines[:NAMED]), *more], POINTS[width] - 60, 8.0)
    columns = max(1, int(POINTS[width] // (max(width_of(name, 8.0) for name in names) + 36)))
    figure = new_figure(width, 2.3 + 0.16 * -(-(len(names) + 2) // columns))
    axes = figure.subplots()
    offsets = _offsets(table, len(lines))
    for index, (_, part) in enumerate(lines):
        _draw_line(axes, part, names[index] if index < NAMED else "", index, float(offsets[index]))
    for name in names[NAMED:]:
        axes.plot([], [], linestyle="", label=name)
    axes.axhline(0, color=palette.MUTED, linestyle=":", linewidth=0.8)
    axes.plot([0.0], [0.0], "x", color=palette.INK, markersize=5, zorder=4, label=START)
    if not np.isnan(_whole(table)):
        axes.axhline(_whole(table), color=palette.INK, linestyle="--", linewidth=0.9, label=REAL)
    strengths = sorted(set(table["strength"].dropna()))
    axes.set_xticks(strengths, [f"{strength:g}".replace("-", "−") for strength in strengths])
    axes.set_ylim(*_limits(table))
    axes.set_xlabel("strength", labelpad=1)
    axes.set_ylabel(fitting_names([_axis_title(_concept(table))], LABEL, 8.0)[0])
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, handlelength=1.5)
    return figure


def _draw_line(axes: Axes, part: pd.DataFrame, name: str, index: int, offset: float) -> None:
    colour, marker = palette.LINES[index % len(palette.LINES)], list(MARKERS.values())[_marker(index)]
    edges = _with_start(part, ["null_lo", "null_hi"])
    if len(edges) > 1:
        axes.fill_between(
            edges["strength"], edges["null_lo"], edges["null_hi"], color=colour, alpha=0.16, linewidth=0
        )
    if len(part) > 1:
        path = _path(part, offset)
        axes.plot(
            path["strength"],
            path["effect"],
            color=colour,
            linewidth=0.9,
            linestyle=_dash(index, list(DASHES.values())),
        )
    known = part.dropna(subset=["effect"])
    for is_clear in (True, False):
        some = known[(known["status"] == CLEAR) == is_clear]
        axes.errorbar(
            some["strength"] + offset,
            some["effect"],
            yerr=(some["effect"] - some["effect_lo"], some["effect_hi"] - some["effect"]),
            fmt=marker,
            color=colour,
            markerfacecolor=colour if is_clear else "white",
            markersize=4.2,
            markeredgewidth=0.9,
            elinewidth=0.8,
            capsize=1.5,
            label="_hidden",
        )
    if name:
        axes.plot([], [], marker=marker, color=colour, markersize=4.2, linewidth=0.9, label=name)


def write_caption(result: xr.Dataset, table: pd.DataFrame, scorer: str = "") -> str:
    """Describe the doses, the tests and the null band, and what limits them."""
    concept = _concept(table)
    steered = str(result.attrs["concept"])
    about = (
        ""
        if concept == steered
        else ", which is not steered (it is scored for the value that the prompt names),"
    )
    sentences = [
        f"Change in the score for {concept}{about} over the strength of steering {steered} {from_to(result)}; scorer "
        f"{table['scorer'].iloc[0]}, "
        f"{steering_sample(result, scorer)}. Strength 0 is the unsteered run.",
        real_sentence(table, result),
        test_sentence(result, table),
        *steering_notes(result, scorer),
    ]
    return " ".join(filter(None, sentences))


def real_sentence(table: pd.DataFrame, result: xr.Dataset) -> str:
    """Say what the dashed line and the intervals are."""
    real = table[table["arm"] == POSITIVE].iloc[0]
    start, end = steered_ends(result)
    return (
        f"Dashed: the prompt with {end} in place of {start}, from the same "
        f"noise ({interval(real, 'effect')}). Bars: {confidence(result)} BCa bootstrap intervals over pairs."
    )


def test_sentence(result: xr.Dataset, table: pd.DataFrame) -> str:
    """Say what is hollow, and what is shaded."""
    cells = table[~table["arm"].isin((POSITIVE, UNSTEERED))]
    if (cells["status"] == UNTESTED).any():
        hollow = f"All points are hollow: {too_few_pairs(int(result.sizes['pair']))}"
    else:
        hollow = (
            f"Hollow: not significant (p > {ALPHA:g} by sign flips of pairs, after Benjamini–Hochberg over the "
            f"{len(cells)} doses of the concept), or inside the null band."
        )
    n = random_count(result)
    shaded = (
        f" Shaded: null bands, each of {n} at the same strength."
        if n
        else " There are no random vectors to compare with."
    )
    return hollow + shaded


def random_count(result: xr.Dataset) -> str:
    """The number of random vectors behind each null band, in words; "" if there are none."""
    counts = Counter(result["null_of"].values[result["role"].values == "null"].tolist()).values()
    if not counts:
        return ""
    fewest, most = min(counts), max(counts)
    return counted(most, "random vector") if fewest == most else f"{fewest} to {most} random vectors"


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: one row for each dose."""
    rows = table.to_dict("records")
    return pd.DataFrame(
        {
            "steering": table["way"],
            "strength": ["" if pd.isna(row["strength"]) else f"{row['strength']:g}" for row in rows],
            "score": table["score"],
            "change [95 %]": ["" if row["arm"] == UNSTEERED else interval(row, "effect") for row in rows],
            "random": [band(pd.Series(row)) for row in rows],
            "p, adjusted": [p_value(row["p_adjusted"]) for row in rows],
        }
    )


FIGURE = Figure(
    name="dose-response",
    spec=DoseResponseSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, table: write_caption(spec.load(study), table, spec.scorer),
    latex=print_table,
)
