"""Sets of features in the study's notes: what chooses one for the table, and keeps what the table shows as one."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from dashboards.components.text import refusal
from dashboards.feature_browser import STARRED, View, browser_frame, visible
from dashboards.links import read_query
from dashboards.pages.feature_query import usable
from dashboards.pages.page import Query
from dashboards.results import sae_names
from dashboards.tables.paging import RowsRequest
from workbench.studies.feature_notes import (
    MOST_IN_SET,
    change_set,
    read_set,
    set_names,
    sets_of,
)
from workbench.studies.study import Study


def selector(study: Study, query: Query) -> Component:
    """What chooses the set that the table shows."""
    return dmc.Select(
        id="feature-set",
        data=set_choices(study),
        value=query.get("set", ""),
        allowDeselect=False,
        size="xs",
        **{"aria-label": "Set of features"},
    )


def saver() -> Component:
    """A line below the table that keeps what its filters leave as a set."""
    name = dmc.TextInput(
        id="set-name",
        placeholder="Name of a set, new or old",
        size="xs",
        w=190,
        **{"aria-label": "Name of a set"},
    )
    return dmc.Group(
        [
            name,
            dmc.Button("Add all these features to the set", id="set-save", variant="default", size="xs"),
            dmc.Text(html.Span(id="set-said", role="status"), size="xs", c="dimmed"),
        ],
        gap="xs",
        mt=4,
    )


def set_choices(study: Study) -> list[dict[str, str]]:
    """All features, the starred ones, and the sets."""
    try:
        names = set_names(study.path)
    except UserError:  # the card says why
        names = []
    fixed = [{"value": "", "label": "All features"}, {"value": STARRED, "label": "Starred"}]
    return fixed + [{"value": name, "label": name} for name in names]


def register(app: dash.Dash, study: Study) -> None:
    """Keep the features that the table shows, and show the set on the card of a feature in it."""

    @app.callback(
        Output("set-said", "children"),
        Output("feature-set", "data", allow_duplicate=True),
        Output({"kind": "sets", "of": ALL}, "value"),
        Input("set-save", "n_clicks"),
        State("set-name", "value"),
        State("sae-name", "value"),
        State("features-grid", "getRowsRequest"),
        State("feature-search", "value"),
        State("url", "search"),
        State({"kind": "sets", "of": ALL}, "id"),
        prevent_initial_call=True,
    )
    def save(
        clicks: int | None,
        of_set: str | None,
        name: str,
        request: dict[str, Any] | None,
        words: str | None,
        search: str | None,
        cards: list[dict[str, str]],
    ) -> tuple[Any, Any, list[Any]]:
        if not clicks or name not in sae_names(study):
            raise PreventUpdate
        asked = None if request is None else RowsRequest.model_validate(request)
        try:
            query = usable(study, name, read_query(search))
            said = _keep(study, View.of_request(name, asked, words, query), (of_set or "").strip())
        except UserError as error:
            return refusal(f"Not saved: {error}"), no_update, [no_update] * len(cards)
        shown = [card["of"].rpartition("/") for card in cards]
        # A card that does not show the set would take its feature out of it with the next change of its sets.
        return said, set_choices(study), [sets_of(study.path, sae, int(feature)) for sae, _, feature in shown]


def _keep(study: Study, view: View, of_set: str) -> str:
    """Add the features of a view to a set, and say how many it has; raise UserError for too many or too few."""
    found = visible(study, view)
    if found.sentences:  # the table shows more features than were asked for
        raise UserError(" ".join(found.sentences))
    if not of_set:
        raise UserError("Give the set a name.")
    features = browser_frame(study, view.name)["feature"].to_numpy()[found.positions]
    if not 0 < len(features) <= MOST_IN_SET:
        raise UserError(
            f"The table shows {len(features):,} features, and a set has 1 to {MOST_IN_SET:,}. Change its filters."
        )
    change_set(study.path, of_set, view.name, add=map(int, features))
    count = len(read_set(study.path, of_set, view.name))
    return f"Saved: the set {of_set} has {count:,} features of {view.name}."
