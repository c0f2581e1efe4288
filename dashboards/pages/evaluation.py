"""Evaluation: methods of steering side by side, at equal distance, with all that makes numbers hard to believe."""

from dataclasses import replace
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
import xarray as xr
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from dashboards.components.export import figure_data
from dashboards.components.graph import clicked_point, figure_panel
from dashboards.components.grid import selected_row
from dashboards.components.no_results import no_results
from dashboards.components.selects import Choice, Selects
from dashboards.components.text import panel, with_code
from dashboards.context import Context
from dashboards.figures import alignment_preservation, leakage, method_ranking
from dashboards.figures.alignment_preservation import AlignmentPreservationSpec
from dashboards.figures.leakage import LeakageSpec
from dashboards.figures.method_ranking import MethodRankingSpec
from dashboards.links import address, change_query, read_query, write_query
from dashboards.pages import evaluation_clips, steering
from dashboards.pages.evaluation_facts import facts, warnings
from dashboards.pages.evaluation_tables import (
    AREAS_HELP,
    TABLE_HELP,
    area_rows,
    areas_grid,
    method_rows,
    methods_grid,
)
from dashboards.pages.evaluation_view import (
    EVERY,
    FIELDS,
    arms_of,
    choices_of,
    is_published,
    result_of,
    trial_of,
    values_of,
    view,
)
from dashboards.pages.page import Page, Query
from dashboards.results import (
    benchmark_names,
    load_result,
    lost_trials,
    trial_name,
)
from dashboards.tables.benchmark import method_of
from workbench.studies.study import Study

PATH = "/evaluation"
NAME = "Evaluation"
SENTENCE = (
    "Methods of steering side by side, on prompts that none was computed from: what each gains, towards the concept's "
    "value and away from it, and what it changes besides."
)
CURVES_HELP = (
    "The change in the score as a fraction of the real prompt's, over the distance from the unsteered clip. Solid: "
    "all blocks; dashed: the localised ones; dotted: others. Grey: random vectors. Star: the real prompt. Dashed line: "
    "the distance at which methods are compared. Click a point to hear its clips."
)
RANKING_HELP = (
    "What part of the real prompt's change each method makes at equal distance, the best first in the mean over both "
    "directions; last, methods at other blocks, which are controls without a rank. Hollow: the interval includes 0, or "
    "random vectors (grey) do as much."
)
LEAKAGE_HELP = (
    "What steering each concept does to all of them, at equal distance: the change as a fraction of what the judged "
    "concept's own prompts do. Framed: the steered concept itself. ∗: the interval includes 0."
)
SELECTS = Selects(
    "evaluation",
    ("result", *FIELDS),
    clears={"result": (*FIELDS, "arm", *evaluation_clips.SELECTION)},
)


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if there is no evaluation."""
    study = context.study
    if not benchmark_names(study):
        then = "This page compares methods of steering at equal distance, with intervals, nulls and leakage."
        return no_results(study, "benchmark", "No evaluation yet.", then)
    head = [
        html.Div(id="evaluation-warnings"),
        SELECTS.layout(_selects(study, query)),
        html.Div(id="evaluation-facts", style={"marginBottom": "14px"}),
    ]
    heard = html.Div([html.Div(id="evaluation-heard"), evaluation_clips.layout()])
    columns = [
        dmc.GridCol(panel("Methods", methods_grid(), help=TABLE_HELP), span=24),
        dmc.GridCol(
            _with(
                heard,
                figure_panel("alignment-preservation", "What is gained and what is changed", CURVES_HELP),
            ),
            span={"base": 24, "lg": 13},
        ),
        dmc.GridCol(
            figure_panel("method-ranking", "At equal distance", RANKING_HELP), span={"base": 24, "lg": 11}
        ),
        dmc.GridCol(figure_panel("leakage", "What it does to other concepts", LEAKAGE_HELP), span=24),
    ]
    has_areas = is_published(result_of(study, query))
    strict = html.Div(dmc.Grid(columns, columns=24, gutter="md"), id="evaluation-strict", hidden=has_areas)
    areas = html.Div(
        panel("TADA's areas", areas_grid(), help=AREAS_HELP),
        id="evaluation-published",
        hidden=not has_areas,
    )
    return html.Div([*head, strict, areas])


def _with(below: Component, panel: Component) -> Component:
    """A panel with something below its graph."""
    panel.children.append(below)
    return panel


def _selects(study: Study, query: Query) -> dict[str, Choice]:
    """What the selects offer and show."""
    now, found = view(study, query), choices_of(result_of(study, query))
    shown = {field: replace(choice, value=now[field]) for field, choice in found.items()}
    return {"result": Choice("result", benchmark_names(study), now["result"]), **shown}


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    study = context.study
    if not benchmark_names(study):
        return {}
    result = result_of(study, query)
    known = {field: values_of(choice.data) for field, choice in choices_of(result).items()}
    arms = [] if is_published(result) else arms_of(result)
    trial = trial_of(study, query)
    runs = {} if trial is None else load_result(study, f"steering-{trial[0]}")
    numbers = {name: [str(one) for one in runs[name].values] if trial else [] for name in ("pair", "seed")}
    return {"result": benchmark_names(study), **known, "arm": arms, **numbers}


def register(app: dash.Dash, context: Context) -> None:
    """Keep controls, table and figures in sync with the selection in the URL."""
    study = context.study
    evaluation_clips.register(app, study, trial_of)
    SELECTS.register(app, lambda query: _selects(study, query))

    @app.callback(
        Output("evaluation-strict", "hidden"),
        Output("evaluation-published", "hidden"),
        Output("evaluation-warnings", "children"),
        Output("evaluation-facts", "children"),
        Output("evaluation-grid", "rowData"),
        Output("evaluation-grid", "selectedRows"),
        Output("evaluation-areas", "rowData"),
        Input("url", "search"),
    )
    def show(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        now, result = view(study, query), result_of(study, query)
        has_areas = is_published(result)
        return (
            has_areas,
            not has_areas,
            warnings(result, now),
            facts(result, now),
            [] if has_areas else method_rows(result, now),
            [],
            area_rows(result, now) if has_areas else [],
        )

    @app.callback(
        Output("alignment-preservation-graph", "figure"),
        Output({"type": "figure", "key": "alignment-preservation"}, "data"),
        Output("evaluation-heard", "children"),
        Output("method-ranking-graph", "figure"),
        Output({"type": "figure", "key": "method-ranking"}, "data"),
        Output("leakage-graph", "figure"),
        Output({"type": "figure", "key": "leakage"}, "data"),
        Input("url", "search"),
    )
    def draw(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        now, result = view(study, query), result_of(study, query)
        if is_published(result):
            raise PreventUpdate
        curves, ranking, leaks = specs(result, now)
        arm = query.get("arm", "")
        return (
            _curves(study, curves, arm),
            figure_data("alignment-preservation", curves),
            _heard(study, result, now, curves.concept, arm),
            method_ranking.draw_screen(method_ranking.make_table(study, ranking)),
            figure_data("method-ranking", ranking),
            leakage.draw_screen(leakage.make_table(study, leaks)),
            figure_data("leakage", leaks),
        )

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("alignment-preservation-graph", "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_point(click: dict[str, Any] | None, search: str | None) -> Any:
        about = (clicked_point(click) or {}).get("customdata")
        if not isinstance(about, list) or not all(isinstance(one, str) for one in about[:2]):
            return no_update
        return change_query(search, arm=about[0], direction=about[1])

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("evaluation-grid", "selectedRows"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_row(rows: Any, search: str | None) -> Any:
        row = selected_row(rows)
        if row is None:
            return no_update
        return change_query(search, method=method_of(str(row["way"])))


def specs(
    result: xr.Dataset, now: dict[str, str]
) -> tuple[AlignmentPreservationSpec, MethodRankingSpec, LeakageSpec]:
    """The specs of the three figures; with all concepts, the curves are those of the first."""
    common = {"name": now["result"], "scorer": now["scorer"], "measure": now["measure"]}
    concept = "" if now["concept"] == EVERY else now["concept"]
    method = "" if now["method"] == EVERY else now["method"]
    of_curves = concept or str(result["concept"].values[0])
    return (
        AlignmentPreservationSpec(**common, concept=of_curves, method=method),
        MethodRankingSpec(**common, concept=concept),
        LeakageSpec(**common, direction=now["direction"], method=method),
    )


def _curves(study: Study, spec: AlignmentPreservationSpec, arm: str) -> go.Figure:
    table = alignment_preservation.make_table(study, spec)
    return alignment_preservation.draw_screen(table, spec.across, arm)


def _heard(study: Study, result: xr.Dataset, now: dict[str, str], concept: str, arm: str) -> Component | None:
    """A link to the clips of the arm that was clicked, on the page of its trial."""
    if arm not in arms_of(result):
        return None
    trial = trial_name(study, result, concept, now["direction"])
    if not trial:
        gone = ["The study does not have the trial of its clips any more."]
        why = " ".join(lost_trials(study, concept, now["direction"]) or gone)
        return dmc.Text(with_code(f"{arm}: {why}"), size="sm", c="dimmed", style={"overflowWrap": "anywhere"})
    selection = {"result": trial, "scorer": now["scorer"], "shown": concept, "arm": arm}
    strength = float(result["strength"].sel(arm=arm))
    return dmc.Group(
        [
            dmc.Text(f"{arm}, {now['direction']}", size="sm", fw=600),
            dmc.Anchor(
                "All its prompts and strengths",
                href=address(steering.PATH) + write_query({**selection, "strength": f"{strength:g}"}),
                size="sm",
                fw=500,
                id="evaluation-hear",
            ),
        ],
        gap="sm",
        mb="xs",
    )


def _is_linked(context: Context) -> bool:
    return any(name.startswith("benchmark-") for name in context.study.result_names())


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, _is_linked, kind="benchmark")
