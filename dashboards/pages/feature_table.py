"""The table of an autoencoder's features: its columns, the rows that the server sends, and the row of the selection."""

from collections.abc import Callable
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, State, dcc, html
from dash.development.base_component import Component

from cache.errors import UserError
from cache.wording import counted
from dashboards.components.following import follow_study
from dashboards.components.grid import headed
from dashboards.components.paged_grid import TYPING_MS, paged_grid, server_filter
from dashboards.components.text import panel
from dashboards.feature_browser import CARRIED, View, Visible, page_of_rows, place, scored_values
from dashboards.figures.feature import FeatureSpec
from dashboards.links import read_query
from dashboards.names import shortened
from dashboards.numbers import fixed, p_value, percent, significant
from dashboards.pages import (
    feature_card,
    feature_map,
    feature_notes,
    feature_pairs,
    feature_ranking,
    feature_sets,
)
from dashboards.pages.feature_query import usable
from dashboards.pages.feature_saes import asked_sae, known_sae, sae_choices
from dashboards.pages.page import Query
from dashboards.results import load_result
from dashboards.tables.paging import RANGE_HELP, RowsRequest
from workbench.studies.feature_notes import LONGEST_SET_NAME, read_predecessors
from workbench.studies.study import Study

DENSITY_HELP = "density, the fraction of tokens, over all clips and steps, on which the feature is active."
HELP = (
    "#: the feature's number. Best concept: the concept value that the feature distinguishes best, by the AUROC of its "
    "mean over each clip (0.5 = chance). p: of that AUROC, corrected for the number of features and values. Label: "
    f"yours or, if that p is at most 0.05, the value. Dens.: {DENSITY_HELP} Max: the largest activation. Dead features "
    f"never fire. Below a number's name, filter by {RANGE_HELP}. Select a row, or move with the arrow "
    "keys, to see the feature; / goes to the search."
)
DIFFERENCE_HELP = (
    "Mean activation over the clips with the value, less that over the clips with the other one."
)
SHARE_HELP = (
    "Part of the difference of means of the two values, as the autoencoder reconstructs it, that the feature carries: "
    "its difference times its decoder's component along the whole. The parts sum to 100 %. If the autoencoder scales "
    "its inputs step by step, they are parts of the scaled activations' difference. What the model does with it is "
    "another question (causal effects)."
)
CHARACTER, MARGIN, NARROWEST, WIDEST = 6.6, 14, 76, 138
"""Pixels of a character and beside a text, and of the narrowest and the widest that a column of texts must be."""
WRITTEN: dict[str, Callable[[float], str]] = {
    "difference": significant,
    "share": percent,
    "best_auroc": fixed,
    "best_p": p_value,
    "density": lambda density: percent(density, 2),
    "max_activation": significant,
}
"""How the table writes numbers: as the card does."""
MISSING = "–"
CLEAR_RANKING = " Or clear the ranking, above the table, to see all features."


def layout(study: Study, query: Query) -> Component:
    """The table below what chooses its autoencoder, rows and order."""
    name = asked_sae(study, query)
    controls = [
        dmc.Select(
            id="sae-name",
            data=sae_choices(study),
            value=name,
            allowDeselect=False,
            size="xs",
            className="wide-choice",
            **{"aria-label": "sparse autoencoder"},
        ),
        dmc.TextInput(
            id="feature-search",
            placeholder="Search, e.g. violin",
            size="xs",
            debounce=TYPING_MS,
            **{"data-search": "true", "aria-label": "Search features"},
        ),
        feature_sets.selector(study, query),
        *feature_ranking.selectors(study, name, query),
    ]
    asked = usable(study, name, query)
    said = [html.Span(id=f"features-{part}", role="status") for part in ("count", "outside")]
    others = dcc.Link(
        "Compare with another autoencoder",
        id="features-compare",
        href=feature_pairs.pairs_of(name),
        className="small-link",
    )
    return panel(
        "Features",
        html.Div(controls, className="controls printed"),
        feature_map.area_line(study, name, asked),
        feature_ranking.line(asked),
        dmc.Text(said, size="xs", c="dimmed", mb=4),
        paged_grid("features-grid", columns(study, name, bool(asked.get("value"))), height=640),
        dcc.Store(id="features-place"),
        dcc.Store(id="features-among"),
        html.Div(id="features-sought", hidden=True),
        feature_sets.saver(),
        feature_notes.exchange(),
        help=HELP,
        actions=[others],
    )


def columns(study: Study, name: str, is_ranked: bool) -> list[dict[str, Any]]:
    """The table's columns, with those of a difference between concept values if it is ranked by one.

    All are in view beside the card in a window of 1440 pixels, where long texts may be cut; the table scrolls sideways
    where there is less room.
    """
    longest = max(map(len, scored_values(study, name)), default=0)
    widest = min(max(MARGIN + longest * CHARACTER, NARROWEST), WIDEST)
    every = [
        {"field": "star", "headerName": "★", "width": 26, "headerTooltip": "starred"},
        {**_filtered("feature", "#", 46), "headerTooltip": "the feature's number"},
        _number("difference", "diff.", 74, DIFFERENCE_HELP),
        _number("share", "carries", 62, SHARE_HELP),
        {
            **_filtered("best_value", "best concept"),
            "tooltipField": "best_value",
            "minWidth": widest,
            "flex": 3,
        },
        _number("best_auroc", "AUROC", 58, "AUROC of the feature's mean over each clip for its best concept"),
        _number("best_p", "p", 61, "p of the AUROC, corrected for the number of features and of values"),
        {**_filtered("label", "label"), "tooltipField": "label", "minWidth": NARROWEST, "flex": 2},
        _number("density", "dens.", 66, DENSITY_HELP),
        _number("max_activation", "max", 68, "the largest activation in any clip"),
        {
            **_filtered("alive", "state", 46),
            "headerTooltip": "alive, or dead: active on no token of any clip",
        },
    ]
    left_out = ("best_p", "max_activation", "alive") if is_ranked else CARRIED
    return headed([{**column, "hide": column["field"] in left_out} for column in every])


def _filtered(field: str, name: str, width: int | None = None) -> dict[str, Any]:
    return {"field": field, "headerName": name, "width": width, **server_filter()}


def _number(field: str, name: str, width: int, help: str) -> dict[str, Any]:
    return {**_filtered(field, name, width), "type": "rightAligned", "headerTooltip": help}


def _written(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its numbers as texts; a dash for what has no value."""
    return row | {
        field: MISSING if row[field] is None else write(row[field]) for field, write in WRITTEN.items()
    }


def register(app: dash.Dash, study: Study) -> None:
    """Send the rows that the table asks for, and show the selection in the URL as its selected row."""
    follow_study(app, "sae-name", lambda: sae_choices(study))

    @app.callback(Output("features-compare", "href"), Input("sae-name", "value"), prevent_initial_call=True)
    def link_to_pairs(name: str) -> str:
        return feature_pairs.pairs_of(known_sae(study, name))

    app.clientside_callback(
        ClientsideFunction("features", "sought"),
        Output("features-sought", "data-asked"),
        Input("url", "search"),
    )

    @app.callback(
        Output("features-grid", "getRowsResponse"),
        Output("features-count", "children"),
        Output("features-among", "data"),
        Input("features-grid", "getRowsRequest"),
        State("sae-name", "value"),
        State("feature-search", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def send_rows(
        request: dict[str, Any], name: str, words: str | None, search: str | None
    ) -> tuple[Any, str, dict[str, Any]]:
        asked = RowsRequest.model_validate(request)
        query = usable(study, known_sae(study, name), read_query(search))
        view = View.of_request(name, asked, words, query)
        try:
            rows, shown = page_of_rows(study, view, asked.startRow, asked.endRow)
        except UserError as error:  # such as of weights that are missing
            said = f"{error}{CLEAR_RANKING if view.value else ''}"
            return {"rowData": [], "rowCount": 0}, said, _place(study, None, view)
        among = _place(study, feature_card.selected(study, search), view)
        return (
            {"rowData": [_written(row) for row in rows], "rowCount": len(shown.positions)},
            _counted(study, view, shown),
            among,
        )

    @app.callback(
        Output("features-place", "data"),
        Input("features-sought", "data-asked"),
        State("features-grid", "getRowsRequest"),
        State("feature-search", "value"),
        prevent_initial_call=True,
    )
    def find_row(search: str | None, request: dict[str, Any] | None, words: str | None) -> dict[str, Any]:
        query, spec = read_query(search), feature_card.selected(study, search)
        asked = None if request is None else RowsRequest.model_validate(request)
        name = asked_sae(study, query)
        return _place(study, spec, View.of_request(name, asked, words, usable(study, name, query)))

    app.clientside_callback(
        ClientsideFunction("features", "place"),
        Output("features-place", "id"),
        Input("features-place", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("features", "outside"),
        Output("features-outside", "children"),
        Input("url", "search"),
        Input("features-place", "data"),
        Input("features-among", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("features", "refresh"),
        Output("feature-search", "id"),
        Input("feature-search", "value"),
        Input("sae-name", "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("features", "chosen"),
        Output("feature-set", "id"),
        Input("url", "search"),
        prevent_initial_call=True,
    )


def _place(study: Study, spec: FeatureSpec | None, view: View) -> dict[str, Any]:
    """A feature of the view's autoencoder, and the row in which the view has it; None without one."""
    if spec is None or spec.name != view.name:
        return {"feature": None, "row": None}
    try:
        row = place(study, view, spec.feature)
    except UserError:  # the table says why
        row = None
    return {"feature": str(spec.feature), "row": row}


def _counted(study: Study, view: View, shown: Visible) -> str:
    """How many features the table shows, and which filters have no effect."""
    total, count = load_result(study, f"sae-{view.name}").sizes["feature"], len(shown.positions)
    features = f"{total:,} features" if count == total else f"{count:,} of {total:,} features"
    empty = [] if count else [_why_empty(view)]
    return " ".join([f"{features}.", *shown.sentences, *_of_predecessors(study, view), *empty])


def _why_empty(view: View) -> str:
    """What leaves no feature in the table, and how to get back."""
    narrowed = {
        "the search": view.words.strip(),
        f"the set {shortened(view.of_set, LONGEST_SET_NAME)}": view.of_set,
        "the area of the map": view.area,
        "the filters below the columns' names": view.filters,
    }
    used = [words for words, is_used in narrowed.items() if is_used]
    clear = "it" if len(used) == 1 else "one of them"
    return f"Nothing passes {' and '.join(used)}: clear {clear} to see features again."


def _of_predecessors(study: Study, view: View) -> list[str]:
    """A sentence if notes or the chosen set are of an autoencoder of this name with other weights."""
    try:
        found = read_predecessors(study.path, view.name)
    except UserError:  # the card says why
        return []
    of_whom = f"of an earlier autoencoder {view.name}, which had other weights"
    if view.of_set in found.sets:
        features = counted(found.sets[view.of_set], "feature")
        return [f"Not shown: {features} of this set, {of_whom}."]
    if found.features:
        features = counted(found.features, "feature")
        return [f"Not shown, but in the exported CSV: what was written about {features} {of_whom}."]
    return []
