"""A figure's panel: title, explanation, export button and graph."""

from dash import dcc, html
from dash.development.base_component import Component

from dashboards.components.export import export_button
from dashboards.components.text import panel
from dashboards.drawing.screen import GRAPH_CONFIG


def graph(id: str) -> dcc.Graph:
    """An empty graph for a callback to fill; it sends no data anywhere."""
    return dcc.Graph(id=id, config=GRAPH_CONFIG, className="graph")


def figure_panel(key: str, title: str, help: str, *above: Component) -> Component:
    """The panel of the figure `key`: its graph has the id `<key>-graph`, with `above` over it.

    On a small screen, a map scrolls inside the panel.
    """
    drawn = html.Div(graph(f"{key}-graph"), className="scroll")
    return panel(title, *above, drawn, help=help, actions=[export_button(key)])
