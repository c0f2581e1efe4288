"""Keeps the page of features and its URL in sync: autoencoder, view, set, and the values that rank the table.

What is chosen gets into the URL in the browser (`features.js`), and a selected feature from there onto the card.
"""

from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State, no_update

from dashboards.links import read_query
from dashboards.pages import feature_map, feature_ranking, feature_sets, feature_table
from dashboards.pages.feature_query import usable
from dashboards.pages.feature_saes import asked_sae
from dashboards.pages.page import Query
from workbench.studies.study import Study

VIEWS = {"table": "Features", "map": "Map", "training": "Training and quality"}
"""The views of the page, by their names in the URL; the first is not named there."""


def asked_view(query: Query) -> str:
    """The view in the URL, or the table."""
    return query["view"] if query.get("view") in VIEWS else "table"


CHOSEN = {
    "selected": (Input("features-grid", "selectedRows"), State("sae-name", "value")),
    "autoencoder": (Input("sae-name", "value"), State("sae-name", "data")),
    "tab": (Input("features-tabs", "value"),),
    "rows": (
        Input("feature-set", "value"),
        Input("feature-value", "value"),
        Input("feature-against", "value"),
    ),
    "all": (Input("area-clear", "n_clicks"),),
}
"""What changes the address, by the function of `features.js` that does it."""


def register(app: dash.Dash, study: Study) -> None:
    """Put what is chosen into the URL, and set the selectors to what is there."""

    # In the browser: a round trip less before the card. Most selections change the feature alone.
    for function, inputs in CHOSEN.items():
        app.clientside_callback(
            ClientsideFunction("features", function),
            Output("url", "search", allow_duplicate=True),
            *inputs,
            prevent_initial_call=True,
        )
    app.clientside_callback(
        ClientsideFunction("features", "view"),
        Output("features-sought", "data-view"),
        Input("url", "search"),
    )

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
        Input("features-sought", "data-view"),
        Input("content", "data-version"),
        State("url", "search"),
        State("sae-name", "value"),
        State("features-tabs", "value"),
        State("feature-set", "value"),
        State("feature-value", "value"),
        State("feature-against", "value"),
        State("features-ranked", "children"),
        prevent_initial_call=True,
    )
    def follow_address(
        view: str | None, version: str | None, search: str | None, *shown: str | None
    ) -> tuple[Any, ...]:
        del view, version  # only say that something has changed
        query = read_query(search)
        name = asked_sae(study, query)
        used = usable(study, name, query)
        asked = (
            *(name, asked_view(query), query.get("set", "")),
            *(query.get(part) for part in feature_ranking.SELECTORS),
        )
        *chosen, said = shown
        changed = (no_update if one == now else one for one, now in zip(asked, chosen, strict=True))
        ranked = feature_ranking.ranked_by(used)
        offered: tuple[Any, ...] = (no_update, no_update, no_update)
        if (name, ranked) != (shown[0], said):
            values, others = feature_ranking.offered_values(study, name, query).values()
            offered = (values, others, not others)
        is_other = bool(ranked) != bool(said)
        columns = feature_table.columns(study, name, bool(ranked)) if is_other else no_update
        area = feature_map.area_said(study, name, used)
        lines = (area, not area, ranked)
        return (*changed, feature_sets.set_choices(study), *offered, columns, *lines)
