"""A map of an autoencoder's features: each at its decoder's direction; a box on it filters the table."""

from typing import Any

import dash
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import ClientsideFunction, Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from dashboards.components.graph import graph
from dashboards.components.text import panel
from dashboards.drawing import palette
from dashboards.drawing.screen import COLORSCALE, plain, style
from dashboards.feature_browser import View, browser_frame, places, visible
from dashboards.links import change_query, read_query
from dashboards.pages.page import Query
from dashboards.results import sae_names
from workbench.studies.study import Study

HELP = (
    "The two principal components of the decoder's directions; features that write alike lie together. Draw a box to "
    "see its features in the table; click a point to see the feature."
)
COLOURS = {"best_value": "best concept", "label": "label", "density": "density"}
MOST_NAMES, LONGEST_NAME, HEIGHT = 12, 30, 640
REST = "#b9c0c8"
MOST_POINTS = 5000
"""More are slow to draw; WebGL would draw more, but needs scripts that the page's policy forbids."""


def layout(query: Query) -> Component:
    """The map, drawn when it is first shown."""
    colour = dmc.Select(
        id="map-colour",
        data=[{"value": value, "label": f"colour: {name}"} for value, name in COLOURS.items()],
        value=query.get("colour", "best_value"),
        allowDeselect=False,
        size="xs",
        w=190,
        **{"aria-label": "Colour"},
    )
    said = dmc.Text(html.Span(id="map-said", role="status"), size="xs", c="dimmed")
    return panel("Map of the decoder", said, graph("map-graph"), help=HELP, actions=[colour])


def register(app: dash.Dash, study: Study) -> None:
    """Draw the map; a click selects a feature, a box filters the table."""

    @app.callback(
        Output("map-graph", "figure"),
        Output("map-said", "children"),
        Input("sae-name", "value"),
        Input("features-tabs", "value"),
        Input("map-colour", "value"),
    )
    def draw(name: str, view: str, colour: str) -> tuple[Any, str]:
        if view != "map" or name not in sae_names(study):
            raise PreventUpdate
        try:
            where, shares = places(study, name)
        except UserError as error:
            return style(go.Figure(), height=HEIGHT), str(error)
        colour = colour if colour in COLOURS else "best_value"
        features = browser_frame(study, name)
        drawn = np.sort(np.random.default_rng(0).permutation(len(features))[:MOST_POINTS])
        said = (
            f"The axes have {shares[0]:.1%} and {shares[1]:.1%} of the variance of the decoder's directions."
        )
        if len(drawn) < len(features):
            said += f" {len(drawn):,} of {len(features):,} features are drawn, chosen at random; a box finds all in it."
        return draw_map(features.iloc[drawn], where[drawn], colour), said

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Output("map-graph", "clickData"),
        Input("map-graph", "clickData"),
        State("url", "search"),
        State("sae-name", "value"),
        prevent_initial_call=True,
    )
    def select_point(click: dict[str, Any] | None, search: str | None, name: str) -> tuple[Any, Any]:
        if not click or name not in sae_names(study):
            return no_update, no_update
        point, (where, _) = click["points"][0], places(study, name)
        nearest = int(((where - [point["x"], point["y"]]) ** 2).sum(axis=1).argmin())
        feature = int(browser_frame(study, name)["feature"].iloc[nearest])
        return change_query(search, sae=name, feature=feature, view=None), None

    app.clientside_callback(
        ClientsideFunction("features", "brushed"),
        Output("url", "search", allow_duplicate=True),
        Input("map-graph", "selectedData"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("box-said", "children"),
        Output("box-holder", "hidden"),
        Input("url", "search"),
    )
    def show_box(search: str | None) -> tuple[str, bool]:
        query, names = read_query(search), sae_names(study)
        if not names or not query.get("box"):
            return "", True
        name = query["sae"] if query.get("sae") in names else names[0]
        try:
            count = len(visible(study, View(name, box=query["box"])).positions)
        except UserError as error:
            return str(error), False
        return f"{count:,} features in a box of the map", False

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("box-clear", "n_clicks"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def clear_box(clicks: int | None, search: str | None) -> Any:
        return change_query(search, box=None) if clicks else no_update


def box_line() -> Component:
    """A line above the table while a box of the map filters it."""
    clear = dmc.Button("Show all", id="box-clear", variant="subtle", size="compact-xs")
    line = dmc.Group([dmc.Text(id="box-said", size="xs"), clear], gap="xs", mb="xs")
    return html.Div(line, id="box-holder", hidden=True)


def draw_map(features: pd.DataFrame, where: np.ndarray, colour: str) -> go.Figure:
    """Every feature at its place (feature, 2), in the colour of its name, or of its density."""
    figure = go.Figure()
    if colour == "density":
        levels = np.log10(features["density"].clip(lower=1e-6).to_numpy())
        _add(figure, features, where, np.arange(len(features)), "", levels)
    else:
        for name, rows, painted in groups(features[colour]):
            _add(figure, features, where, rows, name, painted)
        for trace in figure.data[len(palette.LINES) + 1 :]:  # their colours have been used before
            trace.marker.symbol = "diamond"
    figure.update_xaxes(title="first component", zeroline=False)
    figure.update_yaxes(title="second component", zeroline=False)
    return style(figure, height=HEIGHT, dragmode="select", showlegend=True, legend={"itemsizing": "constant"})


def groups(names: pd.Series) -> list[tuple[str, np.ndarray, str]]:
    """The most frequent names, with the rows that have them and a colour; the rest are grey, and drawn first."""
    frequent = [str(name) for name in names[names != ""].value_counts().index[:MOST_NAMES]]
    rest = np.flatnonzero(~names.isin(frequent).to_numpy())
    coloured = [
        (name, np.flatnonzero((names == name).to_numpy()), palette.LINES[place % len(palette.LINES)])
        for place, name in enumerate(sorted(frequent))
    ]
    return [("other", rest, REST), *coloured] if rest.size else coloured


def _add(
    figure: go.Figure, features: pd.DataFrame, where: np.ndarray, rows: np.ndarray, name: str, colour: Any
) -> None:
    is_scale = not isinstance(colour, str)
    scale = {"colorscale": COLORSCALE, "colorbar": {"title": "log₁₀ density"}} if is_scale else {}
    figure.add_scatter(
        x=where[rows, 0].astype(np.float32),
        y=where[rows, 1].astype(np.float32),
        text=features["feature"].to_numpy()[rows].astype(np.int32),
        mode="markers",
        name=plain(name, LONGEST_NAME),
        showlegend=not is_scale,
        marker={"size": 4, "opacity": 0.7, "color": colour, **scale},
        hovertemplate="feature %{text}<extra>" + plain(name, LONGEST_NAME) + "</extra>",
    )
