"""The recovery ladder: how much of the concept comes back in each way of steering, one row each."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PaperFigure
from matplotlib.patches import Rectangle

from analyses.statistics import ALPHA, too_few_pairs
from dashboards.drawing import palette
from dashboards.drawing.measure import every, fitting_names, width_of, wrapped
from dashboards.drawing.paper import POINTS, Width, new_figure
from dashboards.drawing.screen import plain, plain_lines, style
from dashboards.figures.base import Figure
from dashboards.figures.dose_response import hover, random_count
from dashboards.figures.specs import SteeringFigureSpec, check_choice
from dashboards.numbers import p_value, span
from dashboards.tables.patching import UNTESTED, choose, scorers
from dashboards.tables.steering import CLEAR, arm_labels, chosen_frame, strengths
from dashboards.wording import confidence, from_to, interval, steering_notes, steering_sample
from workbench.studies.study import Study

ROW_PIXELS = 34
ROW_INCHES, TWO_LINE_INCHES, LOW_ROW_INCHES = 0.2, 0.3, 0.06
TALLEST = 9.0  # inches
MANY_ROWS = 42
MOST_TWO_LINE_ROWS = 28
NAME_ROOM = 0.42  # of the width, for the names on paper
NAME_SIZE = 7.5
LONGEST_LABEL = 48  # characters; the rungs' own names, with their strengths, have fewer
IMPACT = ["impact", "impact_lo", "impact_hi", "band_lo", "band_hi"]
EFFECT = ["effect", "effect_lo", "effect_hi", "p", "p_adjusted"]
AXIS = "fraction of the real prompt's change"


class LadderSpec(SteeringFigureSpec):
    """How much of the concept each way of steering restores, at a `strength` or at its best one."""

    strength: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and, if given, strength and scorer."""
        at = "" if self.strength is None else f"{self.strength:g}"
        return tuple(filter(None, (self.name, at, self.scorer)))


def make_table(study: Study, spec: LadderSpec) -> pd.DataFrame:
    """The rows of `rungs_frame` for the spec's scorer and strength."""
    result = spec.load(study)
    if spec.strength is not None:
        check_choice("strength", spec.strength, strengths(result))
    return rungs_frame(result, spec.scorer, spec.strength)


def rungs_frame(result: xr.Dataset, scorer: str = "", strength: float | None = None) -> pd.DataFrame:
    """One row for each way of steering: scorer, way, arm, strength, best, impact with interval, null band, tests."""
    table = chosen_frame(result, scorer, strength)
    table.insert(0, "scorer", choose("scorer", scorer, scorers(result)))
    nulls = ["null_lo", "null_hi"]
    return table[["scorer", "way", "arm", "strength", "best", *IMPACT, *EFFECT, *nulls, "status"]]


def draw_screen(table: pd.DataFrame, selected: str = "") -> go.Figure:
    """A row for each way; the `selected` arm's point is ringed, and a point's customdata starts with its arm."""
    figure, known = go.Figure(), table["impact"].notna()
    for row in table[table["band_lo"].notna()].itertuples():
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
        )
    for place, name in ((0, "unsteered"), (1, "real prompt")):
        figure.add_vline(
            x=place,
            line={
                "color": palette.MUTED,
                "width": 1,
                "dash": "dash" if place else "dot",
            },
            annotation={"text": name, "font": {"size": 11, "color": palette.MUTED}},
            annotation_position="top left" if place else "top right",
        )
    some = table[known]
    rows = some.to_dict("records")
    chosen = [row["arm"] == selected for row in rows]
    colour = palette.SEQUENTIAL[5]
    figure.add_scatter(
        x=some["impact"],
        y=some.index,
        mode="markers",
        marker={
            "size": 11,
            "opacity": 1,
            "color": [colour if row["status"] == CLEAR else "white" for row in rows],
            "line": {
                "width": [3.5 if one else 2 for one in chosen],
                "color": [palette.PLANTED if one else colour for one in chosen],
            },
        },
        error_x={
            "array": some["impact_hi"] - some["impact"],
            "arrayminus": some["impact"] - some["impact_lo"],
            "color": colour,
            "thickness": 1.6,
            "width": 4,
        },
        customdata=[[row["arm"], plain(row["arm"]), _hover(row)] for row in rows],
        hovertemplate="<b>%{customdata[1]}</b><br>%{customdata[2]}<extra></extra>",
    )
    for place in table.index[~known]:
        figure.add_annotation(
            x=0.5,
            y=int(place),
            text=table["status"].loc[place],
            showarrow=False,
            font={"size": 11, "color": palette.MUTED},
        )
    figure.update_xaxes(title=AXIS, range=list(_limits(table)), fixedrange=True)
    figure.update_yaxes(
        tickvals=list(table.index),
        ticktext=[plain_lines(name, LONGEST_LABEL) for name in _labels(table)],
        range=[len(table) - 0.4, -0.6],
        showgrid=False,
        fixedrange=True,
    )
    styled = style(figure, height=90 + ROW_PIXELS * len(table), clickmode="event", hovermode="closest")
    return styled.update_layout(margin={"t": 26})


def _labels(table: pd.DataFrame) -> list[str]:
    return arm_labels(table["arm"].tolist(), LONGEST_LABEL)


def _paper_names(table: pd.DataFrame, room: float) -> list[str]:
    """The labels in one line or, if there is room for such rows, in two; those that don't fit are shortened."""
    labels = _labels(table)
    names = fitting_names(labels, room, NAME_SIZE)
    if len(table) > MOST_TWO_LINE_ROWS:
        return names
    lines = [wrapped(label, room, NAME_SIZE) for label in labels]
    is_whole = [
        len(parts) <= 2 and all(width_of(part, NAME_SIZE) <= room for part in parts) for parts in lines
    ]
    return [
        "\n".join(parts) if whole else name for parts, whole, name in zip(lines, is_whole, names, strict=True)
    ]


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: from 0 to 1, or further if a number is."""
    values = table[IMPACT].to_numpy(float)
    values = np.append(values[~np.isnan(values)], (0.0, 1.0))
    margin = 0.04 * (values.max() - values.min())
    return float(values.min() - margin), float(values.max() + margin)


def _hover(row: dict[Hashable, Any]) -> str:
    best = "<br>the strength with the largest change" if row["best"] else ""
    return f"impact {interval(row, 'impact', 3)}<br>{hover(row)}{best}"


def draw_rows(axes: Axes, table: pd.DataFrame, name: str, verdict: str) -> None:
    """Draw a point with its interval for each row, its null band, and lines at 0 and 1; hollow where not clear.

    `name` is the column of the numbers, `verdict` that which says "clear".
    """
    for one in table[table["band_lo"].notna()].itertuples():
        corner = (one.band_lo, one.Index - 0.36)
        wide = one.band_hi - one.band_lo
        axes.add_patch(Rectangle(corner, wide, 0.72, facecolor=palette.MUTED, alpha=0.28, linewidth=0))
    axes.axvline(0, color=palette.MUTED, linestyle=":", linewidth=0.8)
    axes.axvline(1, color=palette.INK, linestyle="--", linewidth=0.8)
    colour = palette.SEQUENTIAL[6]
    for is_clear in (True, False):
        some = table[table[name].notna() & ((table[verdict] == CLEAR) == is_clear)]
        axes.errorbar(
            some[name],
            some.index,
            xerr=(some[name] - some[f"{name}_lo"], some[f"{name}_hi"] - some[name]),
            fmt="o",
            color=colour,
            markerfacecolor=colour if is_clear else "white",
            markersize=4.2,
            markeredgewidth=0.9,
            elinewidth=0.9,
            capsize=1.5,
        )


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """A row for each way, with its interval; hollow where not significant or inside the null band."""
    names = _paper_names(table, NAME_ROOM * POINTS[width])
    row = ROW_INCHES if len(table) <= MANY_ROWS else max(LOW_ROW_INCHES, TALLEST / len(table))
    if any("\n" in name for name in names):
        row = TWO_LINE_INCHES
    figure = new_figure(width, 0.65 + row * len(table))
    axes = figure.subplots()
    draw_rows(axes, table, "impact", "status")
    for place in table.index[table["impact"].isna()]:
        axes.text(
            0.5, place, table["status"].loc[place], ha="center", va="center", fontsize=7, color=palette.MUTED
        )
    one_in = every(NAME_SIZE, 72 * row)
    axes.set_yticks(table.index[::one_in], names[::one_in], fontsize=NAME_SIZE)
    axes.set_xlim(*_limits(table))
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel(AXIS, labelpad=1)
    return figure


def write_caption(result: xr.Dataset, table: pd.DataFrame, spec: LadderSpec) -> str:
    """Describe the rows, how their strengths were chosen, the tests and the null band."""
    n, steered = random_count(result), result.attrs["concept"]
    sentences = [
        f"Impact of each way of steering {steered} {from_to(result)}: its "
        "change in the score as a fraction of the change that the real prompt makes from the same noise (0: unsteered, "
        "1: real prompt); "
        f"scorer {table['scorer'].iloc[0]}, {steering_sample(result, spec.scorer)}.",
        _strengths_sentence(table, spec.strength),
        f"Bars: {confidence(result)} BCa bootstrap intervals over pairs.",
        _hollow_sentence(result, table),
        f"Grey: null bands, each of {n} at the same strength."
        if n
        else "There are no random vectors to compare with.",
        *steering_notes(result, spec.scorer),
    ]
    return " ".join(filter(None, sentences))


def _strengths_sentence(table: pd.DataFrame, strength: float | None) -> str:
    if strength is None:
        return (
            "Each is shown at the strength with the largest change, chosen on the same prompts, so that impacts at "
            "chosen strengths are optimistic."
        )
    others = table.loc[table["best"], "way"].tolist()
    apart = f" ({', '.join(others)}: at the strength with the largest change)" if others else ""
    return f"Strength {strength:g}{apart}."


def _hollow_sentence(result: xr.Dataset, table: pd.DataFrame) -> str:
    if table["impact"].isna().all():
        return ""
    if (table["status"] == UNTESTED).any():
        return f"All points are hollow: {too_few_pairs(int(result.sizes['pair']))}"
    return (
        f"Hollow: not significant (p > {ALPHA:g} by sign flips of pairs, after Benjamini–Hochberg over all doses), or "
        "inside the null band."
    )


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: one row for each way of steering."""
    rows = table.to_dict("records")
    return pd.DataFrame(
        {
            "steering": table["way"],
            "strength": table["strength"].map("{:g}".format),
            "impact [95 %]": [
                row["status"] if pd.isna(row["impact"]) else interval(row, "impact") for row in rows
            ],
            "random": [
                "none" if pd.isna(row["band_lo"]) else span(row["band_lo"], row["band_hi"]) for row in rows
            ],
            "p, adjusted": table["p_adjusted"].map(p_value),
        }
    )


FIGURE = Figure(
    name="ladder",
    spec=LadderSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, table: write_caption(spec.load(study), table, spec),
    latex=print_table,
)
