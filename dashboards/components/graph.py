"""A figure's panel: title, explanation, export button and graph."""

from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards.components.export import export_button
from dashboards.components.text import panel
from dashboards.drawing.screen import GRAPH_CONFIG

_AXIS, _CLEAR = {"visible": False}, "rgba(0, 0, 0, 0)"
_EMPTY = {
    "data": [],
    "layout": {"xaxis": _AXIS, "yaxis": _AXIS, "paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR},
}


def graph(id: str) -> dcc.Graph:
    """An empty graph, without axes, for a callback to fill; it sends no data anywhere."""
    return dcc.Graph(id=id, figure=_EMPTY, config=GRAPH_CONFIG, className="graph")


def figure_panel(key: str, title: str, help: str, *above: Component) -> Component:
    """The panel of the figure `key`: its graph has the id `<key>-graph`, with `above` over it.

    On a small screen, a map scrolls inside the panel.
    """
    drawn = html.Div(graph(f"{key}-graph"), className="scroll")
    return panel(title, *above, drawn, help=help, actions=[export_button(key)])


def last_click(*clicks: dict[str, Any] | None) -> tuple[int, dict[str, Any]] | None:
    """The graph (its place among them) and point that were clicked last, of graphs' `clickData`; None without any.

    Clicks have the time at which they were made. No callback empties `clickData`: it could hold the next click by then.
    """
    given = [(click.get("timestamp", 0), place) for place, click in enumerate(clicks) if click]
    if not given:
        return None
    _, place = max(given)
    return place, (clicks[place] or {})["points"][0]


def clicked_point(click: dict[str, Any] | None) -> dict[str, Any] | None:
    """The point that was clicked, of a graph's `clickData`; None without any. See `last_click`."""
    return click["points"][0] if click else None
