"""Comparison: a patching map beside another study's, or beside a published table."""

import shlex
from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from dashboards.components.graph import clicked_point, figure_panel, graph
from dashboards.components.no_results import no_results
from dashboards.components.selects import Choice, Selects
from dashboards.components.text import empty_state, numbers, panel
from dashboards.context import Context
from dashboards.drawing.grids import as_map, cell_at
from dashboards.figures import patching_comparison
from dashboards.figures.patching_comparison import PatchingComparisonSpec, compare, describe_agreement
from dashboards.links import address, change_query, read_query, write_query
from dashboards.pages import patching
from dashboards.pages.page import Page, Query
from dashboards.results import load_result, patching_names
from dashboards.tables.comparison import Comparison
from dashboards.tables.patching import columns, default_columns, scorers
from dashboards.wording import interval

PATH = "/comparison"
NAME = "Comparison"
SENTENCE = (
    "This study's impact map beside another study's, or beside published impacts, on the concepts they share."
)
HELP = (
    "Hatched cells are not significant or inside the null band. Published tables have no intervals or tests. Click a "
    "cell to see its impact in both maps."
)
SCATTER_HELP = (
    "Each dot is a cell that both maps have, with its intervals. On the dotted line, both impacts are equal. How well "
    "the maps agree is told of single blocks, if there are any: a set of blocks repeats the impacts of its blocks."
)
SELECTION = ("concept", "row")
SELECTS = Selects(
    "compare", ("other", "result", "scorer", "column"), clears={"result": ("scorer", "column", *SELECTION)}
)
OF_OTHER = {"compare", "published", "model", "imported"}


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if there is nothing to compare."""
    study = context.study
    then = "This page shows two maps side by side, a scatter plot of their impacts, and how well their rankings agree."
    if not patching_names(study):
        return no_results(study, "patching", "No patching results yet.", then)
    if not context.comparisons:
        example = (
            f"workbench dashboard {shlex.quote(str(study.path))} --compare OTHER_STUDY --published TABLE.csv"
        )
        return empty_state(["Nothing to compare with yet."], then, example)
    matched = [html.Div(id="compare-numbers"), html.Div(graph("compare-scatter"), className="square")]
    above = html.Div([SELECTS.layout(_choices(context, query)), html.Div(id="compare-notes")])
    cells = html.Div(panel("Cell by cell", *matched, help=SCATTER_HELP), id="compare-matched", hidden=True)
    maps = figure_panel("patching-compare", "Two maps", HELP, above)
    maps.children.append(html.Div(id="compare-cell"))
    return dmc.Stack([maps, cells], gap="md")


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    if not patching_names(context.study) or not context.comparisons:
        return {}
    known = {name: choice.data for name, choice in _choices(context, query).items()}
    try:
        cells = compare(context.study, _spec(context, query)).frame
    except UserError:
        return known
    return {**known, **{name: list(dict.fromkeys(cells[name])) for name in SELECTION}}


def _choices(context: Context, query: Query) -> dict[str, Choice]:
    """What each select offers, and its value from the URL; unknown values fall back to the default."""
    study = context.study
    names = patching_names(study)
    if not names or not context.comparisons:
        raise PreventUpdate
    name = _known(query.get("result"), names)
    result = load_result(study, f"patching-{name}")
    known, others = columns(result), list(context.comparisons)
    column = query["column"] if query.get("column") in known else default_columns(result)[0]
    return {
        "other": Choice("compare with", others, _known(query.get("other"), others)),
        "result": Choice("result", names, name),
        "scorer": Choice("scorer", scorers(result), _known(query.get("scorer"), scorers(result))),
        "column": Choice("column", known, column),
    }


def _known(asked: str | None, known: list[str]) -> str:
    return asked if asked in known else known[0]


def _spec(context: Context, query: Query) -> PatchingComparisonSpec:
    chosen = {name: str(choice.value) for name, choice in _choices(context, query).items()}
    return context.comparison_spec(
        chosen["other"], name=chosen["result"], scorer=chosen["scorer"], column=chosen["column"]
    )


def register(app: dash.Dash, context: Context) -> None:
    """Keep the two maps in sync with the selection in the URL."""
    study = context.study

    SELECTS.register(app, lambda query: _choices(context, query))

    @app.callback(
        Output("patching-compare-graph", "figure"),
        Output("patching-compare-graph", "style"),
        Output({"type": "figure", "key": "patching-compare"}, "data"),
        Output("compare-notes", "children"),
        Output("compare-matched", "hidden"),
        Output("compare-numbers", "children"),
        Output("compare-scatter", "figure"),
        Output("compare-cell", "children"),
        Input("url", "search"),
    )
    def show(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        spec = _spec(context, query)
        hidden = {"display": "none"}
        try:
            compared = compare(study, spec)
        except UserError as error:
            return go.Figure(), hidden, None, _notes([str(error)]), True, None, go.Figure(), None
        if compared.frame.empty:
            return go.Figure(), hidden, None, _notes(compared.notes), True, None, go.Figure(), None
        selected = (query.get("concept", ""), query.get("row", ""))
        picture = patching_comparison.draw_screen(compared.frame, selected)
        return (
            picture,
            {},
            {"figure": "patching-compare", "options": _browser_options(spec, context)},
            _notes(compared.notes),
            compared.matched.empty,
            _notes(describe_agreement(compared)),
            patching_comparison.draw_scatter(compared.matched, compared.names),
            _cell(context, spec, compared, *selected),
        )

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("patching-compare-graph", "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_cell(click: dict[str, Any] | None, search: str | None) -> Any:
        point = clicked_point(click)
        if point is None:
            return no_update
        compared = compare(study, _spec(context, read_query(search)))
        cell = cell_at(as_map(compared.frame), point["x"], point["y"])
        return no_update if cell is None else change_query(search, concept=cell[0], row=cell[1])


def _cell(
    context: Context, spec: PatchingComparisonSpec, compared: Comparison, concept: str, row: str
) -> Component | None:
    """A cell's impact in the maps that have it, and a link to its clips in this study; None if no map has it."""
    frame = compared.frame
    sides = frame[(frame["concept"] == concept) & (frame["row"] == row)].to_dict("records")
    if not sides:
        return None
    impacts = {
        f"impact, {side['map']}": side["status"] if pd.isna(side["impact"]) else interval(side, "impact", 3)
        for side in sides
    }
    result = load_result(context.study, spec.result_name)
    is_here = (result["row"] == row) & (result["column"] == spec.column) & (result["role"] == "cell")
    arms = result["arm"].values[is_here.values]
    links = []
    if arms.size and concept in result["concept"].values:
        own: dict[str, str | int | None] = {
            "result": spec.name,
            "scorer": spec.scorer,
            "concept": concept,
            "arm": str(arms[0]),
        }
        href = address(patching.PATH) + write_query(own)
        links.append(dcc.Link("Its pairs and clips in this study", href=href, className="site-links"))
    return html.Div([numbers({"concept": concept, "row": row, **impacts}), *links], role="status")


def _browser_options(spec: PatchingComparisonSpec, context: Context) -> dict[str, Any]:
    """The figure's options as the browser gets them: no paths, only the name of the comparison."""
    options = spec.model_dump(mode="json", exclude=OF_OTHER)
    own = spec.model_dump(include=OF_OTHER, exclude_defaults=True)
    return {**options, "other": next(name for name, choice in context.comparisons.items() if choice == own)}


def _notes(sentences: list[str]) -> Component:
    return html.Ul([html.Li(sentence) for sentence in sentences], className="notes compare-notes")


def _has_comparisons(context: Context) -> bool:
    return bool(context.comparisons)


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, _has_comparisons, kind="patching")
