"""Features: the table of a sparse autoencoder's features, and its training curves."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from dashboards.components.export import figure_data
from dashboards.components.graph import figure_panel
from dashboards.components.grid import WRAPPED, number_column, row_grid, selected_row
from dashboards.components.text import empty_state, numbers, panel
from dashboards.context import Context
from dashboards.figures import sae_quality, sae_training
from dashboards.figures.sae_quality import SaeQualitySpec
from dashboards.figures.sae_training import SaeTrainingSpec
from dashboards.links import change_query, read_query
from dashboards.numbers import fixed, percent, significant
from dashboards.pages import feature_card
from dashboards.pages.page import Page, Query
from dashboards.results import command, load_result, sae_names
from dashboards.summaries import mean_to_spread
from dashboards.tables.features import features_frame
from workbench.sae.settings import sae_kind
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
    "p: of that AUROC, corrected for the number of features and values. Label: the value, if that p is at most 0.05. "
    "Dead features never fire. Select a row to see the feature."
)
DEAD_FEATURES = f"{sae_training.DEAD}; those alive in all clips fired on at least one token of any clip."
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
    data = [{"value": name, "label": _described(study, name)} for name in names]
    chooser = dmc.Select(
        id="sae-name", data=data, value=_name(query, names), allowDeselect=False, size="xs", w=260
    )
    search = dmc.TextInput(id="feature-search", placeholder="Search, e.g. violin", size="xs", w=120)
    table = row_grid("features-grid", _columns(), height=640)
    training = figure_panel("sae-training", "Training", TRAINING_HELP, html.Div(id="sae-numbers"))
    quality = figure_panel("sae-quality", "Quality by step", QUALITY_HELP, html.Div(id="sae-gate"))
    return dmc.Grid(
        [
            dmc.GridCol(panel("Features", table, help=TABLE_HELP, actions=[search, chooser]), span=12),
            dmc.GridCol(feature_card.layout(), span=12),
            dmc.GridCol(training, span=24),
            dmc.GridCol(quality, span=24),
        ],
        columns=24,
        gutter="md",
    )


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    study = context.study
    names = sae_names(study)
    if not names:
        return {"sae": names}
    result = load_result(study, f"sae-{_name(query, names)}")
    return {"sae": names, "feature": [str(feature) for feature in result["feature"].values]}


def _columns() -> list[dict[str, Any]]:
    """The table's columns; a long name takes at most three lines, and hovering shows it whole."""
    return [
        {"field": "feature", "width": 68, **_filter("Number")},
        {
            "field": "best_value",
            "headerName": "best concept",
            "flex": 1,
            "minWidth": 110,
            "tooltipField": "best_value",
            "cellClass": "three-lines",
            **WRAPPED,
            **_filter("Text"),
        },
        {
            "field": "best_auroc",
            "headerName": "AUROC",
            "width": 62,
            **number_column(".3f"),
            **_filter("Number"),
        },
        {
            "field": "best_p",
            "headerName": "p",
            "headerTooltip": "p of the AUROC, corrected for the number of features and of values",
            "width": 54,
            **number_column(".2g"),
            **_filter("Number"),
        },
        {"field": "label", "width": 84, "tooltipField": "label", **_filter("Text")},
        {"field": "density", "width": 66, **number_column(".2%"), **_filter("Number")},
        {
            "field": "max_activation",
            "headerName": "max",
            "width": 50,
            **number_column(".2f"),
            **_filter("Number"),
        },
        {"field": "alive", "width": 52, **_filter("Text")},
    ]


def _filter(kind: str) -> dict[str, Any]:
    """Settings of a column with a filter below its name."""
    return {"filter": f"ag{kind}ColumnFilter", "floatingFilter": True, "suppressFloatingFilterButton": True}


def register(app: dash.Dash, context: Context) -> None:
    """Keep table, feature and training in sync with the selection in the URL."""
    study = context.study
    feature_card.register(app, study)

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

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("features-grid", "selectedRows"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_feature(rows: Any, search: str | None) -> Any:
        query, row = read_query(search), selected_row(rows)
        if row is None or row["id"] == query.get("feature"):
            return no_update
        return change_query(search, sae=_name(query, sae_names(study)), feature=row["id"])

    @app.callback(
        Output("features-grid", "rowData"),
        Output("features-grid", "selectedRows"),
        Output("features-grid", "scrollTo"),
        Output("sae-training-graph", "figure"),
        Output("sae-numbers", "children"),
        Output({"type": "figure", "key": "sae-training"}, "data"),
        Output("sae-quality-graph", "figure"),
        Output("sae-gate", "children"),
        Output({"type": "figure", "key": "sae-quality"}, "data"),
        Input("sae-name", "value"),
        State("url", "search"),
    )
    def show_autoencoder(name: str | None, search: str | None) -> tuple[Any, ...]:
        spec, by_step = SaeTrainingSpec(name=str(name)), SaeQualitySpec(name=str(name))
        table = features_frame(load_result(study, spec.result_name))
        rows = _rows(table)
        picture: go.Figure = sae_training.draw_screen(sae_training.make_table(study, spec))
        chosen = read_query(search).get("feature")
        chosen = chosen if chosen in {row["id"] for row in rows} else None
        selected = {"ids": [chosen]} if chosen else []
        place = {"rowId": chosen, "rowPosition": "middle"} if chosen else None
        steps = sae_quality.make_table(study, by_step)
        return (
            *(rows, selected, place),
            *(picture, _numbers(study, spec), figure_data("sae-training", spec)),
            sae_quality.draw_screen(steps),
            dmc.Text(sae_quality.closed_steps(steps), size="xs", c="dimmed"),
            figure_data("sae-quality", by_step),
        )

    @app.callback(
        Output("features-grid", "dashGridOptions"),
        Input("feature-search", "value"),
        State("features-grid", "dashGridOptions"),
        prevent_initial_call=True,
    )
    def search_table(text: str | None, options: dict[str, Any] | None) -> dict[str, Any]:
        return {**(options or {}), "quickFilterText": text or ""}


def _rows(features: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's rows, highest AUROC first, with no more than its columns: there may be tens of thousands of rows."""
    table = features.sort_values("best_auroc", ascending=False, kind="stable")
    table = table.assign(alive=table["alive"].map({True: "yes", False: "dead"}))
    table = table[[column["field"] for column in _columns()]].assign(id=table["feature"].astype(str))
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _name(query: Query, names: list[str]) -> str:
    if not names:  # any more
        raise PreventUpdate
    return query["sae"] if query.get("sae") in names else names[0]


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
