"""Comparison: a patching map beside another study's, or beside a published table."""

import shlex
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from dashboards.components.graph import figure_panel, graph
from dashboards.components.text import empty_state, panel
from dashboards.context import Context
from dashboards.figures import patching_comparison
from dashboards.figures.patching_comparison import PatchingComparisonSpec, compare, describe_agreement
from dashboards.links import change_query, read_query
from dashboards.pages.page import Page, Query
from dashboards.results import command, load_result, patching_names
from dashboards.tables.patching import columns, default_columns, scorers

PATH = "/comparison"
NAME = "Comparison"
SENTENCE = (
    "This study's impact map beside another study's, or beside published impacts, on the concepts they share."
)
HELP = (
    "Hatched cells are not significant or inside the null band. Published tables have no intervals or tests."
)
SCATTER_HELP = (
    "Each dot is a cell that both maps have, with its intervals. On the dotted line, both impacts are equal."
)
LABELS = {"other": "compare with", "result": "result", "scorer": "scorer", "column": "column"}
CONTROLS = tuple(LABELS)
OF_OTHER = {"compare", "published", "model", "imported"}


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if there is nothing to compare."""
    study = context.study
    then = "This page shows two maps side by side, a scatter plot of their impacts, and how well their rankings agree."
    if not patching_names(study):
        return empty_state("No patching results yet.", then, command(study, "patching"))
    if not context.comparisons:
        example = (
            f"workbench dashboard {shlex.quote(str(study.path))} --compare OTHER_STUDY --published TABLE.csv"
        )
        return empty_state("Nothing to compare with yet.", then, example)
    selects = [
        dmc.Select(id=f"compare-{name}", label=label, data=data, value=value, allowDeselect=False, size="xs")
        for (name, label), (data, value) in zip(
            LABELS.items(), _controls(context, query).values(), strict=True
        )
    ]
    matched = [html.Div(id="compare-numbers"), html.Div(graph("compare-scatter"), className="square")]
    above = html.Div([html.Div(selects, className="controls"), html.Div(id="compare-notes")])
    cells = html.Div(panel("Cell by cell", *matched, help=SCATTER_HELP), id="compare-matched", hidden=True)
    return dmc.Stack([figure_panel("patching-compare", "Two maps", HELP, above), cells], gap="md")


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    if not patching_names(context.study) or not context.comparisons:
        return {}
    return {name: data for name, (data, _) in _controls(context, query).items()}


def _controls(context: Context, query: Query) -> dict[str, tuple[list[str], str]]:
    """Each control's choices and its value from the URL; unknown values fall back to the default."""
    study = context.study
    names = patching_names(study)
    if not names or not context.comparisons:
        raise PreventUpdate
    name = _known(query.get("result"), names)
    result = load_result(study, f"patching-{name}")
    known = columns(result)
    column = query["column"] if query.get("column") in known else default_columns(result)[0]
    return {
        "other": (list(context.comparisons), _known(query.get("other"), list(context.comparisons))),
        "result": (names, name),
        "scorer": (scorers(result), _known(query.get("scorer"), scorers(result))),
        "column": (known, column),
    }


def _known(asked: str | None, known: list[str]) -> str:
    return asked if asked in known else known[0]


def _spec(context: Context, query: Query) -> PatchingComparisonSpec:
    chosen = {name: value for name, (_, value) in _controls(context, query).items()}
    return context.comparison_spec(
        chosen["other"], name=chosen["result"], scorer=chosen["scorer"], column=chosen["column"]
    )


def register(app: dash.Dash, context: Context) -> None:
    """Keep the two maps in sync with the selection in the URL."""
    study = context.study

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        *(Input(f"compare-{name}", "value") for name in CONTROLS),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose(other: str, name: str, scorer: str, column: str, search: str | None) -> Any:
        now = {field: value for field, (_, value) in _controls(context, read_query(search)).items()}
        if name != now["result"]:
            return change_query(search, result=name, scorer=None, column=None)
        asked = {"other": other, "scorer": scorer, "column": column}
        changed = {field: value for field, value in asked.items() if value and value != now[field]}
        return change_query(search, **changed) if changed else no_update

    @app.callback(
        *(Output(f"compare-{name}", part) for name in CONTROLS for part in ("data", "value")),
        Input("url", "search"),
    )
    def show_controls(search: str | None) -> tuple[Any, ...]:
        choices = _controls(context, read_query(search))
        return tuple(part for choice in choices.values() for part in choice)

    @app.callback(
        Output("patching-compare-graph", "figure"),
        Output("patching-compare-graph", "style"),
        Output({"type": "figure", "key": "patching-compare"}, "data"),
        Output("compare-notes", "children"),
        Output("compare-matched", "hidden"),
        Output("compare-numbers", "children"),
        Output("compare-scatter", "figure"),
        Input("url", "search"),
    )
    def show(search: str | None) -> tuple[Any, ...]:
        spec = _spec(context, read_query(search))
        hidden = {"display": "none"}
        try:
            compared = compare(study, spec)
        except UserError as error:
            return go.Figure(), hidden, None, _notes([str(error)]), True, None, go.Figure()
        if compared.frame.empty:
            return go.Figure(), hidden, None, _notes(compared.notes), True, None, go.Figure()
        picture = patching_comparison.draw_screen(compared.frame)
        return (
            picture,
            {},
            {"figure": "patching-compare", "options": _browser_options(spec, context)},
            _notes(compared.notes),
            compared.matched.empty,
            _notes(describe_agreement(compared)),
            patching_comparison.draw_scatter(compared.matched, compared.names),
        )


def _browser_options(spec: PatchingComparisonSpec, context: Context) -> dict[str, Any]:
    """The figure's options as the browser gets them: no paths, only the name of the comparison."""
    options = spec.model_dump(mode="json", exclude=OF_OTHER)
    own = spec.model_dump(include=OF_OTHER, exclude_defaults=True)
    return {**options, "other": next(name for name, choice in context.comparisons.items() if choice == own)}


def _notes(sentences: list[str]) -> Component:
    return html.Ul([html.Li(sentence) for sentence in sentences], className="notes compare-notes")


def _has_comparisons(context: Context) -> bool:
    return bool(context.comparisons)


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, is_linked=_has_comparisons)
