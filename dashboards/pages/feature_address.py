"""Keeps the page of features and its URL in sync: autoencoder, view, set, and the values that rank the table.

The feature that is selected gets into the URL in the browser (`feature_table.py`), and from there onto the card.
"""

from typing import Any

import dash
from dash import Input, Output, State, no_update

from dashboards.links import change_query, read_query
from dashboards.pages import feature_map, feature_ranking, feature_sets, feature_table
from dashboards.pages.feature_saes import asked_sae
from dashboards.pages.page import Query
from workbench.studies.study import Study

VIEWS = {"table": "Features", "map": "Map", "training": "Training and quality"}
"""The views of the page, by their names in the URL; the first is not named there."""


def asked_view(query: Query) -> str:
    """The view in the URL, or the table."""
    return query["view"] if query.get("view") in VIEWS else "table"


def register(app: dash.Dash, study: Study) -> None:
    """Put what is chosen into the URL, and set the selectors to what is there."""

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("sae-name", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_autoencoder(name: str, search: str | None) -> Any:
        if name == asked_sae(study, read_query(search)):
            return no_update
        return change_query(search, sae=name, feature=None)

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("features-tabs", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_view(value: str, search: str | None) -> Any:
        if value == asked_view(read_query(search)):
            return no_update
        return change_query(search, view=None if value == "table" else value)

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Output("features-grid", "columnDefs", allow_duplicate=True),
        Input("feature-set", "value"),
        Input("feature-value", "value"),
        Input("feature-against", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_rows(of_set: str | None, value: str | None, against: str | None, search: str | None) -> Any:
        other = against if feature_ranking.is_comparable(value, against) else None
        asked = {"set": of_set or "", "value": value or "", "against": other or ""}
        query = read_query(search)
        if asked == {name: query.get(name, "") for name in asked}:
            return no_update, no_update
        is_other = bool(value) != bool(query.get("value"))
        name = asked_sae(study, query)
        columns = feature_table.columns(study, name, bool(value)) if is_other else no_update
        return change_query(search, **asked), columns

    @app.callback(
        Output("sae-name", "value"),
        Output("features-tabs", "value"),
        Output("feature-set", "value"),
        Output("feature-value", "value"),
        Output("feature-against", "value"),
        Output("feature-set", "data"),
        Output("feature-value", "data"),
        Output("feature-against", "data"),
        Output("feature-against", "disabled"),
        Output("features-grid", "columnDefs"),
        Output("area-said", "children"),
        Output("area-holder", "hidden"),
        Output("features-ranked", "children"),
        Input("url", "search"),
        State("sae-name", "value"),
        State("features-tabs", "value"),
        State("feature-set", "value"),
        State("feature-value", "value"),
        State("feature-against", "value"),
        prevent_initial_call=True,
    )
    def follow_address(search: str | None, *shown: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        name, value = asked_sae(study, query), query.get("value")
        asked = (name, asked_view(query), query.get("set", ""), value, query.get("against"))
        changed = (no_update if one == now else one for one, now in zip(asked, shown, strict=True))
        offered: tuple[Any, ...] = (no_update, no_update, no_update)
        if (name, value) != (shown[0], shown[3]):
            values, others = feature_ranking.offered_values(study, name, query).values()
            offered = (values, others, not others)
        is_other = bool(value) != bool(shown[3])
        columns = feature_table.columns(study, name, bool(value)) if is_other else no_update
        area = feature_map.area_said(study, name, query)
        lines = (area, not area, feature_ranking.ranked_by(query))
        return (*changed, feature_sets.set_choices(study), *offered, columns, *lines)
