"""Patching maps on screen."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.drawing import palette
from dashboards.drawing.grids import Grid, Section, lay_out
from dashboards.drawing.screen import (
    LONGEST_NAME,
    cell_numbers,
    color_axis,
    dots,
    hatch,
    outline,
    plain,
    selection,
    style,
)
from dashboards.tables.patching import SCREENED_OUT, UNCLEAR, UNTESTED

SHORT_NAME = 14  # characters of a column's name that fit below a map
SLANTED_PIXELS = 3.6  # height added by each further character
ROW_PIXELS = 32
LOW_ROW_PIXELS = 24  # with many rows
MANY_ROWS = 14
NUMBERS_UP_TO = 16  # columns; with more the numbers no longer fit their cells
HOVER = "<b>%{customdata[0]} · %{customdata[1]}</b><br>%{customdata[2]}<extra></extra>"
WITHOUT_NUMBER = {
    "undefined": "undefined",
    "no score": "no score",
    SCREENED_OUT: "not run",
}  # statuses without a number, and the text in their cells


def draw_map(
    frame: pd.DataFrame, selected: tuple[str, str] | None = None, title: str = "impact"
) -> go.Figure:
    """Draw a frame for `lay_out`; its column `hover` is the text that cells show on hover.

    Cells are coloured by their impact, or their `level` if the frame has one; `title` names the colours.
    """
    grid = lay_out(frame)
    figure = go.Figure()
    for section in grid.sections:
        _add_section(figure, section, len(grid.lefts))
    _label_axes(figure, grid)
    figure.update_layout(shapes=_outlines(frame, grid, selected))
    pixels = ROW_PIXELS if len(grid.tops) <= MANY_ROWS else LOW_ROW_PIXELS
    height = int(grid.height * pixels)
    longest = max(len(plain(across, LONGEST_NAME)) for _, across in grid.lefts)
    # Long names are slanted below the map, and must not take space from its rows.
    names = int(SLANTED_PIXELS * max(0, longest - SHORT_NAME))
    return style(
        figure, height=height + 100 + names, clickmode="event", coloraxis=color_axis(title, height)
    ).update_layout(margin={"t": 44})


def _label_axes(figure: go.Figure, grid: Grid) -> None:
    between = "<br>" if len(grid.tops) <= MANY_ROWS else " "  # low rows have room for one line
    names = [
        _null_name(label, grid.nulls[label], between) if label in grid.nulls else plain(label, LONGEST_NAME)
        for label in grid.tops
    ]
    figure.update_xaxes(
        tickvals=[left + 0.5 for left in grid.lefts.values()],
        ticktext=[plain(across, LONGEST_NAME) for _, across in grid.lefts],
        range=[0, grid.width],
    )
    figure.update_yaxes(
        tickvals=[top + 0.5 for top in grid.tops.values()], ticktext=names, range=[grid.height, 0]
    )
    figure.update_xaxes(showgrid=False, fixedrange=True)
    figure.update_yaxes(showgrid=False, fixedrange=True)
    for panel, middle in grid.panels.items():
        figure.add_annotation(
            x=middle,
            y=0,
            text="<br>".join(_title_lines(panel, grid.meanings[panel])),
            showarrow=False,
            yanchor="bottom",
            yshift=4,
            font={"size": 12, "color": palette.INK},
        )


def _plain(names: np.ndarray) -> np.ndarray:
    """A table of names escaped for Plotly; None where there is none."""
    return np.vectorize(lambda name: None if name is None else plain(name), otypes=[object])(names)


def _null_name(label: str, count: int, between: str) -> str:
    several = f"{between}<span style='font-size:9px'>(largest of {count})</span>" if count > 1 else ""
    return f"<i>{plain(label)}</i>{several}"


def _title_lines(name: str, meaning: str) -> list[str]:
    """A panel's name and, below it in small print, its meaning."""
    return [
        f"<b>{plain(name, LONGEST_NAME)}</b>",
        *([f"<span style='font-size:11px'>{meaning}</span>"] if meaning else []),
    ]


def _add_section(figure: go.Figure, section: Section, columns: int) -> None:
    edges = {
        "x": [*section.lefts, section.lefts[-1] + 1],
        "y": [*section.tops, section.tops[-1] + 1],
    }
    status, impact = section.table("status"), section.numbers("impact")
    level = section.numbers("level") if "level" in section.frame else impact
    names = map(_plain, (section.table("concept"), section.table("arm")))
    customdata = np.stack([*names, section.table("hover")], axis=-1)
    words = np.vectorize(lambda name: WITHOUT_NUMBER.get(name, ""), otypes=[object])(status)
    common = {
        **edges,
        "customdata": customdata,
        "hovertemplate": HOVER,
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
    }
    figure.add_heatmap(
        z=level,
        coloraxis="coloraxis",
        **common,
    )
    figure.add_heatmap(
        z=np.where(words != "", 0.0, np.nan),
        colorscale=[[0, palette.UNDEFINED], [1, palette.UNDEFINED]],
        showscale=False,
        text=words,
        texttemplate="%{text}" if columns <= NUMBERS_UP_TO / 2 else "",
        textfont={"size": 11 if columns <= 4 else 9, "color": palette.MUTED},
        **common,
    )
    unclear = np.isin(status.astype(str), UNCLEAR)
    lines = hatch(unclear, level, section.lefts, section.tops, sparse=columns > NUMBERS_UP_TO)
    figure.add_traces(lines)
    if (status == UNTESTED).any():
        figure.add_trace(dots(status.astype(str) == UNTESTED, level, section.lefts, section.tops))
    if columns <= NUMBERS_UP_TO:
        size = 13 if columns <= 8 else 11
        figure.add_trace(cell_numbers(level, section.lefts, section.tops, size, impact))


def _outlines(frame: pd.DataFrame, grid: Grid, selected: tuple[str, str] | None) -> list[dict[str, Any]]:
    planted = frame[frame["planted"]] if "planted" in frame else frame.iloc[:0]
    shapes = [outline(*grid.corner(row), palette.PLANTED) for row in planted.itertuples()]
    if selected is not None:
        chosen = frame[(frame["concept"] == selected[0]) & (frame["arm"] == selected[1])]
        for row in chosen.itertuples():
            shapes += selection(*grid.corner(row))
    return shapes
