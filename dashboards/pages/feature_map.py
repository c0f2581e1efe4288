"""A map of an autoencoder's features: each at its decoder's direction; an area of it filters the table."""

from typing import Any

import dash
import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import ClientsideFunction, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from dashboards.components.text import panel
from dashboards.drawing import palette
from dashboards.drawing.screen import COLORSCALE, GRAPH_CONFIG, plain, style
from dashboards.feature_browser import View, browser_frame, places, visible
from dashboards.links import change_query, read_query
from dashboards.pages import feature_card
from dashboards.pages.page import Query
from dashboards.results import sae_names
from workbench.studies.study import Study

HELP = (
    "The two principal components of the decoder's directions; features that write alike lie together. Draw a box, or "
    "a lasso (its button is above the map), to see the features in it in the table; click a point to see the feature."
)
FIRST_COLOUR = "best_value"
COLOURS = {FIRST_COLOUR: "best concept", "label": "label", "density": "density"}
MOST_NAMES, LONGEST_NAME, HEIGHT = 12, 30, 640
REST, SELECTED = "#b9c0c8", "#e8590c"
MAP_CONFIG = {**GRAPH_CONFIG, "modeBarButtonsToRemove": ["toImage"]}
FEW_POINTS = 1000
"""So few are drawn larger."""
MOST_POINTS = 5000
"""More are slow to draw; WebGL would draw more, but needs scripts that the page's policy forbids."""


def layout(query: Query) -> Component:
    """The map, drawn when it is first shown."""
    colour = dmc.Select(
        id="map-colour",
        data=[{"value": value, "label": f"colour: {name}"} for value, name in COLOURS.items()],
        value=asked_colour(query),
        allowDeselect=False,
        size="xs",
        w=190,
        **{"aria-label": "Colour"},
    )
    said = dmc.Text(html.Span(id="map-said", role="status"), size="xs", c="dimmed")
    drawn = dcc.Graph(id="map-graph", config=MAP_CONFIG, className="graph")
    return panel("Map of the decoder", said, drawn, help=HELP, actions=[colour])


def asked_colour(query: Query) -> str:
    """What colours the points in the URL, or the best concept."""
    return query["colour"] if query.get("colour") in COLOURS else FIRST_COLOUR


def register(app: dash.Dash, study: Study) -> None:
    """Draw the map; a click selects a feature, an area filters the table."""

    @app.callback(
        Output("map-graph", "figure"),
        Output("map-graph", "style"),
        Output("map-said", "children"),
        Input("sae-name", "value"),
        Input("features-tabs", "value"),
        Input("map-colour", "value"),
        State("url", "search"),
    )
    def draw(name: str, view: str, colour: str, search: str | None) -> tuple[go.Figure, dict[str, str], str]:
        if view != "map" or name not in sae_names(study):
            raise PreventUpdate
        try:
            where, shares = places(study, name)
        except UserError as error:
            return go.Figure(), feature_card.NOT_SHOWN, str(error)
        colour = asked_colour({"colour": colour})
        features = browser_frame(study, name)
        drawn = np.sort(np.random.default_rng(0).permutation(len(features))[:MOST_POINTS])
        said = (
            f"The axes have {shares[0]:.1%} and {shares[1]:.1%} of the variance of the decoder's directions."
        )
        if len(drawn) < len(features):
            said += f" {len(drawn):,} of {len(features):,} features are drawn, chosen at random; an area has all in it."
        figure = draw_map(features.iloc[drawn], where[drawn], colour)
        spec = feature_card.selected(study, search)
        if spec is not None and spec.name == name:
            mark_selected(figure, spec.feature, where[features["feature"].to_numpy() == spec.feature][0])
        return figure, {}, said

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

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("map-colour", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_colour(colour: str, search: str | None) -> Any:
        if colour == asked_colour(read_query(search)):
            return no_update
        return change_query(search, colour=None if colour == FIRST_COLOUR else colour)

    @app.callback(
        Output("map-colour", "value"),
        Input("url", "search"),
        State("map-colour", "value"),
        prevent_initial_call=True,
    )
    def follow_colour(search: str | None, shown: str) -> Any:
        asked = asked_colour(read_query(search))
        return no_update if asked == shown else asked

    app.clientside_callback(
        ClientsideFunction("features", "brushed"),
        Output("url", "search", allow_duplicate=True),
        Input("map-graph", "selectedData"),
        prevent_initial_call=True,
    )


def area_line(study: Study, name: str, query: Query) -> Component:
    """A line above the table while an area of the map filters it."""
    said = area_said(study, name, query)
    clear = dmc.Button("Show all", id="area-clear", variant="subtle", size="compact-xs")
    line = dmc.Group([dmc.Text(said, id="area-said", size="xs"), clear], gap="xs", mb="xs")
    return html.Div(line, id="area-holder", hidden=not said)


def area_said(study: Study, name: str, query: Query) -> str:
    """How many features are in the area of the map in the URL; "" if there is none."""
    if not query.get("area"):
        return ""
    try:
        return f"{len(visible(study, View(name, area=query['area'])).positions):,} features in an area of the map"
    except UserError as error:
        return str(error)


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
    return style(
        figure,
        height=HEIGHT,
        dragmode="select",
        showlegend=True,
        legend={
            "itemsizing": "constant",
            "orientation": "h",
            "y": -0.12,
        },  # below: beside, it takes a phone's width
        margin={"l": 8, "r": 8, "t": 36, "b": 8},  # above, the buttons cover nothing
    )


def mark_selected(figure: go.Figure, feature: int, where: np.ndarray) -> None:
    """Draw a ring around the feature that the card shows, at which the keyboard begins (`map.js`)."""
    figure.add_scatter(
        x=[where[0]],
        y=[where[1]],
        mode="markers",
        name=f"feature {feature}",
        meta="start",
        marker={"size": 14, "symbol": "circle-open", "color": SELECTED, "line": {"width": 3}},
        hovertemplate=f"feature {feature}, selected<extra></extra>",
    )


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
        marker={"size": 4 if len(features) > FEW_POINTS else 6, "opacity": 0.8, "color": colour, **scale},
        hovertemplate="feature %{text}<extra>" + plain(name, LONGEST_NAME) + "</extra>",
    )
