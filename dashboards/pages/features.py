"""Features: the table of a sparse autoencoder's features, and its training curves."""

from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import ClientsideFunction, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from cache.wording import counted
from dashboards.components.export import figure_data
from dashboards.components.following import follow_study
from dashboards.components.graph import figure_panel
from dashboards.components.grid import number_column
from dashboards.components.paged_grid import TYPING_MS, paged_grid, server_filter
from dashboards.components.text import empty_state, numbers, panel
from dashboards.context import Context
from dashboards.feature_browser import CARRIED, View, Visible, page_of_rows, place, scored_values
from dashboards.figures import sae_quality, sae_training
from dashboards.figures.sae_quality import SaeQualitySpec
from dashboards.figures.sae_training import SaeTrainingSpec
from dashboards.links import address, change_query, read_query, write_query
from dashboards.numbers import fixed, percent, significant
from dashboards.pages import feature_card, feature_map, feature_notes, feature_pairs, feature_sets
from dashboards.pages.page import Page, Query
from dashboards.results import command, load_result, sae_names
from dashboards.summaries import mean_to_spread
from dashboards.tables.paging import RANGE_HELP, RowsRequest
from workbench.sae.settings import sae_kind
from workbench.studies.feature_notes import read_predecessors
from workbench.studies.study import Study

PATH = "/features"
NAME = "Features"
SENTENCE = (
    "Features that a sparse autoencoder found in the activations of one site, with their top-activating clips and the "
    "concepts they distinguish."
)
TABLE_HELP = (
    "Density: fraction of tokens, over all clips and steps, on which the feature is active. Best concept: the "
    "concept value that the feature distinguishes best, by the AUROC of its mean over each clip (0.5 = chance). "
    "p: of that AUROC, corrected for the number of features and values. Label: yours or, if that p is at most "
    "0.05, the value. "
    f"Dead features never fire. Below a number's name, filter by {RANGE_HELP}. Select a row, or move with the arrow "
    "keys, to see the feature; / goes to the search."
)
DEAD_FEATURES = f"{sae_training.DEAD}; those alive in all clips fired on at least one token of any clip."
VIEWS = {"table": "Features", "map": "Map", "training": "Training and quality"}
_TABLE, _CARD = {"base": 24, "lg": 12, "xl": 13}, {"base": 24, "lg": 12, "xl": 11}
"""Parts of 24; at 1440 pixels the table shows all its columns."""
DIFFERENCE_HELP = (
    "Mean activation over the clips with the value, less that over the clips with the other one."
)
SHARE_HELP = (
    "Part of the difference of means of the two values, as the autoencoder reconstructs it, that the feature carries: "
    "its difference times its decoder's component along the whole. The parts sum to 100 %; what the model does with it "
    "is another question (causal effects)."
)
QUALITY_HELP = (
    "Each metric on the held-out tokens of one denoising step; explained variance is about the step's own mean. Open "
    "marks: steps at which the autoencoder may not be used for steering, unless told otherwise."
)
TRAINING_HELP = (
    "Solid: each metric on the batch of each training step (except dead features). Dashed: on held-out tokens. "
    f"{sae_training.DEAD}."
)


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if there is no sparse autoencoder."""
    study = context.study
    names = sae_names(study)
    if not names:
        then = (
            "This page lists a sparse autoencoder's features, with audio and spectrograms of their top clips."
        )
        return empty_state("No sparse autoencoder yet.", then, command(study, "sae"))
    chooser = dmc.Select(
        id="sae-name",
        data=_autoencoders(study),
        value=_name(query, names),
        allowDeselect=False,
        size="xs",
        **{"aria-label": "sparse autoencoder"},
    )
    search = dmc.TextInput(
        id="feature-search",
        placeholder="Search, e.g. violin",
        size="xs",
        debounce=TYPING_MS,
        **{"data-search": "true", "aria-label": "Search features"},
    )
    sets = dmc.Select(
        id="feature-set",
        data=feature_sets.set_choices(study),
        value=query.get("set", ""),
        allowDeselect=False,
        size="xs",
        **{"aria-label": "Set of features"},
    )
    values = scored_values(study, _name(query, names))
    ranked = [
        dmc.Select(
            id=f"feature-{name}",
            data=values,
            value=query.get(name),
            placeholder=words,
            clearable=True,
            size="xs",
            **{"aria-label": words},
        )
        for name, words in (("value", "Rank for a concept value"), ("against", "… against another"))
    ]
    table = [
        paged_grid("features-grid", _columns(bool(query.get("value"))), height=640),
        dmc.Text(html.Span(id="features-count", role="status"), size="xs", c="dimmed", mt=4),
        dcc.Store(id="features-place"),
        html.Div(id="features-sought", hidden=True),
        feature_sets.saver(),
        feature_notes.exchange(),
    ]
    others = dcc.Link(
        "Compare with another autoencoder",
        id="features-compare",
        href=feature_pairs.pairs_of(_name(query, names)),
        className="small-link",
    )
    training = figure_panel("sae-training", "Training", TRAINING_HELP, html.Div(id="sae-numbers"))
    quality = figure_panel("sae-quality", "Quality by step", QUALITY_HELP, html.Div(id="sae-gate"))
    browser = dmc.Grid(
        [
            dmc.GridCol(
                panel(
                    "Features",
                    html.Div([chooser, search, sets, *ranked], className="controls"),
                    feature_map.area_line(study, _name(query, names), query),
                    html.Div(_ranked_by(query), id="features-ranked", className="ranked"),
                    *table,
                    help=TABLE_HELP,
                    actions=[others],
                ),
                span=_TABLE,
            ),
            dmc.GridCol(feature_card.layout(), span=_CARD),
        ],
        columns=24,
        gutter="md",
    )
    return dmc.Tabs(
        [
            dmc.TabsList([dmc.TabsTab(name, value=value) for value, name in VIEWS.items()], mb="md"),
            dmc.TabsPanel(browser, value="table", keepMounted=True),
            dmc.TabsPanel(feature_map.layout(query), value="map"),
            dmc.TabsPanel(dmc.Stack([training, quality]), value="training"),
        ],
        id="features-tabs",
        value=_view(query),
        keepMounted=False,  # what draws graphs is large, and loaded only when needed
    )


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    study = context.study
    names = sae_names(study)
    if not names:
        return {"sae": names}
    area = {"area": [query["area"]]} if query.get("area") else {}
    result = load_result(study, f"sae-{_name(query, names)}")
    known = result["feature"].values
    asked = feature_card.selected(study, write_query({**query, "sae": _name(query, names)}))
    # Not all of tens of thousands: the one that is asked for, or some to choose from.
    features = [str(asked.feature)] if asked else [str(feature) for feature in known[:20]] + ["…"]
    values = dict.fromkeys(("value", "against"), scored_values(study, _name(query, names)))
    return {
        "sae": names,
        "feature": features,
        "view": list(VIEWS)[1:],
        "set": _set_values(study),
        **values,
        **area,
    }


def _columns(is_ranked: bool) -> list[dict[str, Any]]:
    """The table's columns, with those of a difference between concept values if it is ranked by one."""
    columns = [
        {"field": "star", "headerName": "★", "width": 30, "headerTooltip": "starred"},
        {"field": "feature", "width": 66, **server_filter()},
        {
            "field": "best_value",
            "headerName": "best concept",
            "flex": 1,
            "minWidth": 96,
            "tooltipField": "best_value",
            **server_filter(),
        },
        _number("best_auroc", "AUROC", 64, ".3f"),
        {
            **_number("best_p", "p", 62, ".2g"),
            "headerTooltip": "p of the AUROC, corrected for the number of features and of values",
        },
        {"field": "label", "width": 72, "tooltipField": "label", **server_filter()},
        _number("density", "density", 66, ".2%"),
        _number("max_activation", "max", 50, ".2f"),
        {"field": "alive", "width": 48, **server_filter()},
        {**_number("difference", "difference", 76, ".3~g"), "headerTooltip": DIFFERENCE_HELP},
        {**_number("share", "carries", 66, ".1%"), "headerTooltip": SHARE_HELP},
    ]
    left_out = ("best_p", "max_activation", "alive") if is_ranked else CARRIED
    return [{**column, "hide": column["field"] in left_out} for column in columns]


def _number(field: str, name: str, width: int, form: str) -> dict[str, Any]:
    return {
        "field": field,
        "headerName": name,
        "width": width,
        **number_column(form),
        **server_filter(),
    }


def register(app: dash.Dash, context: Context) -> None:
    """Keep table, feature and training in sync with the selection in the URL."""
    study = context.study
    feature_card.register(app, study)
    feature_map.register(app, study)
    feature_sets.register(app, study)
    follow_study(app, "sae-name", lambda: _autoencoders(study))

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("sae-name", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_autoencoder(name: str, search: str | None) -> Any:
        if name == _name(read_query(search), sae_names(study)):
            return no_update
        return change_query(search, sae=name, feature=None)

    @app.callback(Output("features-compare", "href"), Input("sae-name", "value"), prevent_initial_call=True)
    def link_to_pairs(name: str) -> str:
        return feature_pairs.pairs_of(_known(study, name))

    # In the browser: a round trip less before the card.
    app.clientside_callback(
        ClientsideFunction("features", "selected"),
        Output("url", "search", allow_duplicate=True),
        Input("features-grid", "selectedRows"),
        State("sae-name", "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("features", "sought"),
        Output("features-sought", "data-asked"),
        Input("url", "search"),
    )

    @app.callback(
        Output("features-grid", "getRowsResponse"),
        Output("features-count", "children"),
        Input("features-grid", "getRowsRequest"),
        State("sae-name", "value"),
        State("feature-search", "value"),
        State("url", "search"),
    )
    def send_rows(
        request: dict[str, Any] | None, name: str, words: str | None, search: str | None
    ) -> tuple[Any, str]:
        if request is None:
            raise PreventUpdate
        asked = RowsRequest.model_validate(request)
        view = View.of_request(_known(study, name), asked, words, read_query(search))
        try:
            rows, shown = page_of_rows(study, view, asked.startRow, asked.endRow)
        except UserError as error:  # such as of a concept value that there is not
            return {"rowData": [], "rowCount": 0}, str(error)
        return {"rowData": rows, "rowCount": len(shown.positions)}, _counted(study, view, shown)

    @app.callback(
        Output("features-place", "data"),
        Input("features-sought", "data-asked"),
        State("features-grid", "getRowsRequest"),
        State("feature-search", "value"),
        prevent_initial_call=True,
    )
    def find_row(search: str | None, request: dict[str, Any] | None, words: str | None) -> dict[str, Any]:
        query = read_query(search)
        spec = feature_card.selected(study, search)
        if spec is None:
            return {"feature": None, "row": None}
        asked = None if request is None else RowsRequest.model_validate(request)
        view = View.of_request(_name(query, sae_names(study)), asked, words, query)
        try:
            return {"feature": str(spec.feature), "row": place(study, view, spec.feature)}
        except UserError:  # the table says why
            return {"feature": str(spec.feature), "row": None}

    app.clientside_callback(
        ClientsideFunction("features", "place"),
        Output("features-place", "id"),
        Input("features-place", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("features", "refresh"),
        Output("feature-search", "id"),
        Input("feature-search", "value"),
        Input("sae-name", "value"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("features-tabs", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_view(value: str, search: str | None) -> Any:
        if value == _view(read_query(search)):
            return no_update
        return change_query(search, view=None if value == "table" else value)

    @app.callback(
        Output("sae-name", "value"),
        Output("features-tabs", "value"),
        Output("feature-set", "value"),
        Output("feature-value", "value"),
        Output("feature-against", "value"),
        Output("feature-set", "data"),
        Output("feature-value", "data"),
        Output("feature-against", "data"),
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
        query, names = read_query(search), sae_names(study)
        name, value = _name(query, names), query.get("value")
        asked = (name, _view(query), query.get("set", ""), value, query.get("against"))
        changed = (no_update if one == now else one for one, now in zip(asked, shown, strict=True))
        values = scored_values(study, name) if name != shown[0] else no_update
        columns = no_update if bool(value) == bool(shown[3]) else _columns(bool(value))
        area = feature_map.area_said(study, name, query)
        lines = (area, not area, _ranked_by(query))
        return (*changed, feature_sets.set_choices(study), values, values, columns, *lines)

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
        asked = {"set": of_set or "", "value": value or "", "against": (against if value else "") or ""}
        if asked == {name: read_query(search).get(name, "") for name in asked}:
            return no_update, no_update
        is_other = bool(value) != bool(read_query(search).get("value"))
        return change_query(search, **asked), _columns(bool(value)) if is_other else no_update

    app.clientside_callback(
        ClientsideFunction("features", "chosen"),
        Output("feature-set", "id"),
        Input("url", "search"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("sae-training-graph", "figure"),
        Output("sae-numbers", "children"),
        Output({"type": "figure", "key": "sae-training"}, "data"),
        Output("sae-quality-graph", "figure"),
        Output("sae-gate", "children"),
        Output({"type": "figure", "key": "sae-quality"}, "data"),
        Input("sae-name", "value"),
        Input("features-tabs", "value"),
    )
    def show_training(name: str | None, view: str) -> tuple[Any, ...]:
        if view != "training":
            raise PreventUpdate
        spec, by_step = SaeTrainingSpec(name=str(name)), SaeQualitySpec(name=str(name))
        picture: go.Figure = sae_training.draw_screen(sae_training.make_table(study, spec))
        steps = sae_quality.make_table(study, by_step)
        return (
            *(picture, _numbers(study, spec), figure_data("sae-training", spec)),
            sae_quality.draw_screen(steps),
            dmc.Text(sae_quality.closed_steps(steps), size="xs", c="dimmed"),
            figure_data("sae-quality", by_step),
        )


def _ranked_by(query: Query) -> str:
    """What the order of the table means, if it is ranked by a concept value."""
    if not query.get("value"):
        return ""
    others = query.get("against") or "another value"
    return (
        f"Ranked by the part that a feature carries of the difference between all clips with {query['value']} and all "
        f"with {others}, at this site. A cell of a patching map leads here by the values of its pair; the runs of the "
        "cell itself are not used."
    )


def _set_values(study: Study) -> list[str]:
    return [one["value"] for one in feature_sets.set_choices(study) if one["value"]]


def _view(query: Query) -> str:
    return query["view"] if query.get("view") in VIEWS else "table"


def _known(study: Study, name: str) -> str:
    """The autoencoder, if it can still be shown."""
    if name not in sae_names(study):
        raise PreventUpdate
    return name


def _counted(study: Study, view: View, shown: Visible) -> str:
    """How many features the table shows, and which filters have no effect."""
    total, count = load_result(study, f"sae-{view.name}").sizes["feature"], len(shown.positions)
    features = f"{total:,} features" if count == total else f"{count:,} of {total:,} features"
    return " ".join([f"{features}.", *shown.sentences, *_of_predecessors(study, view)])


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


def _name(query: Query, names: list[str]) -> str:
    if not names:  # any more
        raise PreventUpdate
    return query["sae"] if query.get("sae") in names else names[0]


def _autoencoders(study: Study) -> list[dict[str, str]]:
    return [{"value": name, "label": _described(study, name)} for name in sae_names(study)]


def _described(study: Study, name: str) -> str:
    """An autoencoder's name, its site if that is another, architecture, number of features, and k."""
    result = load_result(study, f"sae-{name}")
    site, kept_as = str(result.attrs["site"]), str(result.attrs["architecture"])
    parts = [
        *([site] if site != name else []),
        sae_kind(str(result.attrs.get("trained_as", kept_as)), kept_as),
        f"{result.sizes['feature']} features",
        *([f"k {result.attrs['k']}"] if "k" in result.attrs else []),
    ]
    return f"{name} ({', '.join(parts)})"


def _numbers(study: Study, spec: SaeTrainingSpec) -> Component:
    result = load_result(study, spec.result_name)
    convention = str(result.attrs["explained_variance_convention"])
    features, alive = result.sizes["feature"], int(result["alive"].sum())
    metrics = numbers(
        {
            "site": str(result.attrs["site"]),
            "alive in all clips": f"{alive} of {features}",
            "held-out loss": significant(float(result["final_loss"]), 4),
            "held-out explained variance": fixed(float(result["final_explained_variance"]), 3),
            "held-out L0": fixed(float(result["final_l0"]), 1),
            "held-out dead features": percent(float(result["final_dead_fraction"])),
        },
        {
            "alive in all clips": DEAD_FEATURES,
            "held-out L0": "Mean number of active features per token.",
            "held-out explained variance": convention,
            "held-out dead features": DEAD_FEATURES,
        },
    )
    note = f"Explained variance is {convention}. {DEAD_FEATURES} {mean_to_spread(result)}"
    return html.Div([metrics, dmc.Text(note, size="xs", c="dimmed", mb="xs")])


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register)


def explained_by(study: Study, block: int, value: str, against: str) -> dict[str, str]:
    """URLs of the features at a block that carry the difference of two values, such as "mood=sad", by autoencoder."""
    sites = {name: str(load_result(study, f"sae-{name}").attrs["site"]) for name in sae_names(study)}
    return {
        name: address(PATH) + write_query({"sae": name, "value": value, "against": against})
        for name, site in sites.items()
        if site.startswith(f"tf{block}.") and {value, against} <= set(scored_values(study, name))
    }
