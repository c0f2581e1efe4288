"""Probes: where a concept can be decoded from the activations, and the folds behind each probe."""

from typing import Any, get_args

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.components.concepts import ConceptPicker
from dashboards.components.export import export_button, figure_data
from dashboards.components.graph import clicked_point, figure_panel, graph
from dashboards.components.no_results import no_results
from dashboards.components.selects import Choice, Selects
from dashboards.components.text import hint, legend, numbers, panel
from dashboards.context import Context
from dashboards.figures import probe_descriptors, probe_folds, probe_maps
from dashboards.figures.probe_descriptors import ProbeDescriptorsSpec
from dashboards.figures.probe_folds import ProbeFoldsSpec
from dashboards.figures.probe_maps import ProbeMapsSpec, Quantity, probe_at
from dashboards.links import change_query, read_query
from dashboards.numbers import fixed, p_value
from dashboards.pages.page import Page, Query
from dashboards.results import is_usable, load_result
from dashboards.tables.probes import HELD_TOGETHER, has_descriptors, probes_frame
from dashboards.wording import interval
from workbench.studies.study import Study

PATH = "/probes"
NAME = "Probes"
SENTENCE = (
    "Where a concept can be decoded from the activations. Each cell is a linear probe for one concept, trained on one "
    "block at one denoising step and tested on held-out prompts."
)
HELP = (
    "Accuracy is balanced and cross-validated. Control: the same probe trained on shuffled labels. Selectivity: "
    "accuracy − mean control over all of the concept's probes. Hatched: not significantly above shuffled labels "
    "(q ≥ 0.05 after Benjamini–Hochberg over all maps). Click a cell to see its folds."
)
RIDGE_HELP = (
    "R² of a ridge regression of the descriptor, cross-validated over held-out prompts: 1 predicts it exactly, 0 knows "
    "no more than its mean. Hatched: not significantly above values shuffled between prompts (q ≥ 0.05 after "
    "Benjamini–Hochberg over all of these maps)."
)
PICKER = ConceptPicker("probes", most=8)
SELECTS = Selects("probes", ("quantity", "part"))
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if there is no probes result."""
    study = context.study
    if not is_usable(study, "probes"):
        then = "This page maps the blocks and steps at which a linear probe can tell each concept's values apart."
        return no_results(study, "probes", "No probe results yet.", then)
    picker = PICKER.layout(_concepts(study), query)
    above = html.Div([SELECTS.layout(_choices(study, query)), picker, html.Div(id="probes-legend")])
    detail = html.Div(
        [
            html.Div(
                hint("Click a cell of a map to see its accuracy in each fold."), id="probe-hint", hidden=True
            ),
            html.Div([html.Div(id="probe-numbers"), graph("probe-folds-graph")], id="probe", hidden=True),
        ]
    )
    folds_help = "The accuracy of one probe in each fold."
    ridge = [figure_panel("probe-descriptors", "Descriptors of the audio", RIDGE_HELP)]
    has_ridge = has_descriptors(load_result(study, "probes"))
    return dmc.Grid(
        [
            dmc.GridCol(figure_panel("probes", "Probe maps", HELP, above), span={"base": 12, "lg": 8}),
            dmc.GridCol(
                panel("Probe", detail, help=folds_help, actions=[export_button("probe-folds")]),
                span={"base": 12, "lg": 4},
                className="beside",
            ),
            # Always there, because its graph is a callback's output.
            dmc.GridCol(ridge, span={"base": 12, "lg": 8}, display="auto" if has_ridge else "none"),
        ],
        gutter="md",
    )


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    study = context.study
    if not is_usable(study, "probes"):
        return {}
    frame = probes_frame(load_result(study, "probes"))
    labels = {name: [str(value) for value in frame[name].unique()] for name in ("concept", "site", "step")}
    picked = PICKER.choices(_concepts(study), query)
    return {"part": _parts(study), "quantity": list(QUANTITIES), **labels, **picked}


def register(app: dash.Dash, context: Context) -> None:
    """Keep maps and folds in sync with the selection in the URL."""
    study = context.study
    PICKER.register(app, lambda _query: _concepts(study))

    SELECTS.register(app, lambda query: _choices(study, query))

    @app.callback(
        Output("probes-graph", "figure"),
        Output({"type": "figure", "key": "probes"}, "data"),
        Output("probes-legend", "children"),
        Input("url", "search"),
    )
    def draw(search: str | None) -> tuple[go.Figure, dict[str, Any], Component]:
        query = read_query(search)
        spec = ProbeMapsSpec(part=_part(query, _parts(study)), quantity=_quantity(query))
        steps = {str(step): int(step) for step in load_result(study, "probes")["step"].values}
        selected = (query.get("concept", ""), query.get("site", ""), steps.get(query.get("step", ""), -1))
        table = _picked(study, spec, query)
        picture = probe_maps.draw_screen(table, spec.quantity, selected)
        return picture, figure_data("probes", spec), _legend(table)

    @app.callback(
        Output("probe-descriptors-graph", "figure"),
        Output({"type": "figure", "key": "probe-descriptors"}, "data"),
        Input("url", "search"),
    )
    def draw_descriptors(search: str | None) -> tuple[go.Figure, dict[str, Any] | None]:
        if not has_descriptors(load_result(study, "probes")):
            return go.Figure(), None
        spec = ProbeDescriptorsSpec(part=_part(read_query(search), _parts(study)))
        picture = probe_descriptors.draw_screen(probe_descriptors.make_table(study, spec))
        return picture, figure_data("probe-descriptors", spec)

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("probes-graph", "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_probe(click: dict[str, Any] | None, search: str | None) -> Any:
        point = clicked_point(click)
        if point is None:
            return no_update
        query = read_query(search)
        frame = _picked(study, ProbeMapsSpec(part=_part(query, _parts(study))), query)
        probe = probe_at(frame, point["curveNumber"], point["x"], point["y"])
        if probe is None:
            return no_update
        return change_query(search, concept=probe[0], site=probe[1], step=probe[2])

    @app.callback(
        Output("probe", "hidden"),
        Output("probe-hint", "hidden"),
        Output("probe-numbers", "children"),
        Output("probe-folds-graph", "figure"),
        Output({"type": "figure", "key": "probe-folds"}, "data"),
        Input("url", "search"),
    )
    def show_probe(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        frame = probes_frame(load_result(study, "probes"))
        named = (frame["concept"] == query.get("concept")) & (frame["site"] == query.get("site"))
        probe = frame[named & (frame["step"].astype(str) == query.get("step"))]
        if probe.empty:
            return True, False, None, go.Figure(), None
        row = probe.iloc[0]
        spec = ProbeFoldsSpec(concept=row["concept"], site=row["site"], step=int(row["step"]))
        folds = probe_folds.make_table(study, spec)
        return False, True, _numbers(row), probe_folds.draw_screen(folds), figure_data("probe-folds", spec)


def _legend(table: pd.DataFrame) -> Component:
    hatched = probe_maps.is_unclear(table["q_value"]).any()
    return legend({"key-hatched": "not significantly above the control"} if hatched else {})


def _concepts(study: Study) -> list[str]:
    return list(map(str, load_result(study, "probes")["concept"].values))


def _picked(study: Study, spec: ProbeMapsSpec, query: Query) -> pd.DataFrame:
    """The probes of the concepts that are shown."""
    table = probe_maps.make_table(study, spec)
    return table[table["concept"].isin(PICKER.picked(_concepts(study), query))].reset_index(drop=True)


def _choices(study: Study, query: Query) -> dict[str, Choice]:
    parts = _parts(study)
    return {
        "quantity": Choice("number", list(QUANTITIES), _quantity(query)),
        "part": Choice("part of the block", parts, _part(query, parts)),
    }


def _parts(study: Study) -> list[str]:
    return list(probes_frame(load_result(study, "probes"))["part"].unique())


def _part(query: Query, parts: list[str]) -> str:
    return query["part"] if query.get("part") in parts else parts[0]


def _quantity(query: Query) -> Any:
    return query["quantity"] if query.get("quantity") in QUANTITIES else QUANTITIES[0]


def _numbers(row: pd.Series) -> Component:
    title = f"{row['concept']} at {row['site']}, step {row['step']} (σ = {fixed(row['sigma'], 3)})"
    return dmc.Stack(
        [
            dmc.Text(title, fw=600, size="sm"),
            numbers(
                {
                    "accuracy, 95 % interval": interval(row, "accuracy", 3),
                    "control": fixed(row["control"], 3),
                    "selectivity": fixed(row["selectivity"], 3),
                    "chance": fixed(row["chance"], 3),
                    "q": p_value(row["q_value"]),
                    "n": f"{fixed(row['n'], 0)} clips, {fixed(row['groups'], 0)} prompts",
                    "held out whole": HELD_TOGETHER[row["held_together"]],
                },
                {
                    "control": "Mean accuracy of this probe with shuffled labels, over few shuffles.",
                    "selectivity": "Accuracy − mean accuracy of all of the concept's probes with shuffled labels.",
                    "q": "p-value for accuracy above shuffled labels, after Benjamini–Hochberg over all probes.",
                },
            ),
        ],
        gap="xs",
        mb="sm",
    )


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, kind="probes", named_by="")
