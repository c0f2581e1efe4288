"""Two patching maps beside each other on screen, and their impacts against each other."""

from collections.abc import Hashable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards.captions import interval
from dashboards.drawing import palette
from dashboards.drawing.grids import as_map
from dashboards.drawing.screen import LONGEST_NAME, plain, style
from dashboards.screen.patching import draw_map

COLOURS = (palette.SEQUENTIAL[5], palette.PLANTED, "#2b8a3e", "#862e9c", "#e67700", palette.INK)


def comparison_map(frame: pd.DataFrame) -> go.Figure:
    """The two maps of a comparison's frame, sharing their rows."""
    hover = [_hover(row) for row in frame.to_dict("records")]
    return draw_map(as_map(frame).assign(hover=hover))


def comparison_scatter(matched: pd.DataFrame, names: tuple[str, str]) -> go.Figure:
    """Impacts of the cells that both maps have, left against right, with their intervals; a colour a concept."""
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
