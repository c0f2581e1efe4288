"""Patching: the impact map of each of a study's questions, and how certain it is."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from analyses.patching.spec import QUESTIONS
from cache.wording import counted
from dashboards.components.concepts import ConceptPicker
from dashboards.components.export import figure_data
from dashboards.components.graph import clicked_point, figure_panel
from dashboards.components.no_results import no_results
from dashboards.components.selects import Choice, Selects
from dashboards.components.text import legend, tip, wide_table
from dashboards.context import Context
from dashboards.drawing.grids import cell_at, lay_out
from dashboards.figures import patching_map
from dashboards.figures.patching_map import PatchingMapSpec
from dashboards.links import change_query, read_query
from dashboards.pages import patching_cell
from dashboards.pages.page import Page, Query
from dashboards.results import load_result, name_to_show, patching_names
from dashboards.tables.patching import (
    ALL,
    CLEAR,
    SCREENED_OUT,
    UNCLEAR,
    UNTESTED,
    agreement,
    columns,
    default_columns,
    default_concept,
    pair_notes,
    scorers,
    tested_cells,
    untested_notes,
)
from dashboards.wording import agreed_text, band, confidence, interval, short_sample
from workbench.studies.study import Study

PATH = "/patching"
NAME = "Patching"
SENTENCE = (
    "Which parts of the network put a concept into the music. For each cell, one part is patched from a run with "
    "another prompt; the impact is the fraction of the concept that is restored (sufficiency) or lost (necessity)."
)
HELP = (
    "Sufficiency = (patched − corrupt) / (clean − corrupt), necessity = (clean − patched) / (clean − corrupt), from "
    "the scores. Hatched: not significant after correction, or inside the null band. Dotted: too few pairs for a test. "
    "Undefined: the clean and corrupt scores do not clearly differ. Null arms, below the gap, do not transfer the "
    "concept and should have no impact: “unrelated” patches from a run with the corrupt value in another context, "
    "“control” from one that differs only in another concept, “random” as far in a random direction; “largest of "
    "n”: of n such impacts. Click a cell to see and hear its pairs."
)
HATCHED = "not significant, or inside the null band"
PICKER = ConceptPicker("patching-pick", most=6)
MAX_BESIDE = 12.5  # columns, such as six concepts in both directions; a wider map needs the whole width
SELECTS = Selects(
    "patching",
    ("result", "scorer", "shown", "column"),
    clears={"result": ("scorer", "shown", "column", "find", "page", *patching_cell.SELECTION)},
)
FACTS = {
    "pairs × seeds": "Counterfactual pairs, seeds per pair, and n: the (pair, seed) combinations with scores.",
    "clean − corrupt": "The denominator of the impact, with its interval; it must be clearly above zero.",
    "stability": "Whether two random halves of the pairs rank the cells in the same way: the mean rank correlation of "
    "their maps, with its interval. In a map without effects it is near 0.",
    "null band": "Range of the impacts of null arms. A cell inside it has no more effect than a null edit.",
    "agreement": "Rank correlation of the map with that of another scorer, over the cells of which both have an "
    "impact, with its interval over pairs. Undefined for fewer than three such cells, equal impacts, or one pair; a "
    "scorer's impacts are undefined where it does not tell the clean and corrupt clips apart.",
}


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if there is no patching result."""
    study = context.study
    if not patching_names(study):
        then = (
            "This page maps, for every block and concept, how much of the concept that block alone restores."
        )
        return no_results(study, "patching", "No patching results yet.", then)
    picker = html.Div(PICKER.layout(_concepts(study, query), query), id="patching-concepts")
    above = html.Div([SELECTS.layout(_choices(study, query)), picker, html.Div(id="patching-legend")])
    map_panel = figure_panel("patching", "Impact", HELP, above)
    map_panel.children.append(html.Div(id="patching-facts"))
    return dmc.Grid(
        [
            dmc.GridCol(map_panel, id="patching-map", span=24),
            dmc.GridCol(patching_cell.layout(), id="patching-detail", span=24),
        ],
        columns=24,
        gutter="md",
    )


def view(study: Study, query: Query) -> PatchingMapSpec:
    """The map selected in the URL; unknown values fall back to the default.

    Raises:
        UserError: the study has no map (any more).
    """
    name = name_to_show(study, "patching", query.get("result", ""))
    result = load_result(study, f"patching-{name}")
    known = {
        "scorer": scorers(result),
        "concept": [ALL, *map(str, result["concept"].values)],
        "column": columns(result),
    }
    asked = {"scorer": query.get("scorer"), "concept": query.get("shown"), "column": query.get("column")}
    chosen = {field: value for field, value in asked.items() if value in known[field]}
    return PatchingMapSpec(name=name, **chosen)


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    study = context.study
    names = patching_names(study)
    if not names:
        return {"result": names}
    spec = view(study, query)
    result = load_result(study, spec.result_name)
    return {
        "result": names,
        "scorer": scorers(result),
        "shown": [ALL, *map(str, result["concept"].values)],
        "column": ["-", *columns(result)],
        **PICKER.choices(_concepts(study, query), query),
        **patching_cell.choices(result),
    }


def _concepts(study: Study, query: Query) -> list[str]:
    return [str(name) for name in load_result(study, view(study, query).result_name)["concept"].values]


def _frame(study: Study, spec: PatchingMapSpec, query: Query) -> pd.DataFrame:
    """The map, with all its concepts or those that are picked."""
    frame = patching_map.make_table(study, spec)
    if frame["concept"].nunique() == 1:
        return frame
    return frame[frame["concept"].isin(PICKER.picked(_concepts(study, query), query))].reset_index(drop=True)


def _choices(study: Study, query: Query) -> dict[str, Choice]:
    spec = view(study, query)
    result = load_result(study, spec.result_name)
    concepts = [{"value": ALL, "label": "all concepts"}, *map(str, result["concept"].values)]
    shown = spec.concept or default_concept(result)
    default = default_columns(result)
    known: list[Any] = columns(result)
    if len(default) > 1:
        known = [{"value": "-", "label": "both directions"}, *known]
    column = spec.column or ("-" if len(default) > 1 else default[0])
    return {
        "result": Choice("question", _results(study), spec.name),
        "scorer": Choice("scorer", scorers(result), spec.scorer or scorers(result)[0]),
        "shown": Choice("concept", concepts, shown),
        "column": Choice(str(result.attrs["column_label"]), known, column, is_hidden=shown != ALL),
    }


def _results(study: Study) -> list[dict[str, str]]:
    return [{"value": name, "label": _question(study, name)} for name in patching_names(study)]


def _question(study: Study, name: str) -> str:
    question = str(load_result(study, f"patching-{name}").attrs["question"])
    label = QUESTIONS[question].title if question in QUESTIONS else question
    return label if name == question else f"{label} ({name})"


def register(app: dash.Dash, context: Context) -> None:
    """Keep controls, map and cell in sync with the selection in the URL."""
    study = context.study
    patching_cell.register(app, study)
    PICKER.register(app, lambda query: _concepts(study, query))
    SELECTS.register(app, lambda query: _choices(study, query))

    @app.callback(Output("patching-concepts", "hidden"), Input("url", "search"))
    def show_picker(search: str | None) -> bool:
        return _choices(study, read_query(search))["shown"].value != ALL

    @app.callback(
        Output("patching-graph", "figure"),
        Output({"type": "figure", "key": "patching"}, "data"),
        Output("patching-legend", "children"),
        Output("patching-facts", "children"),
        Output("patching-map", "span"),
        Output("patching-detail", "span"),
        Output("patching-detail", "className"),
        Input("url", "search"),
        Input("truth", "checked"),
    )
    def draw(search: str | None, truth: bool | None) -> tuple[Any, ...]:
        query = read_query(search)
        spec = view(study, query).model_copy(update={"truth": bool(truth)})
        frame = _frame(study, spec, query)
        result = load_result(study, spec.result_name)
        picture: go.Figure = patching_map.draw_screen(frame, (query.get("concept", ""), query.get("arm", "")))
        beside = lay_out(frame).width <= MAX_BESIDE
        spans = [{"base": 24, "lg": span if beside else 24} for span in (13, 11)]
        return (
            picture,
            figure_data("patching", spec),
            _legend(frame),
            facts(result, frame),
            *spans,
            "beside" if beside else "",
        )

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("patching-graph", "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_cell(click: dict[str, Any] | None, search: str | None) -> Any:
        point = clicked_point(click)
        if point is None:
            return no_update
        query = read_query(search)
        frame = _frame(study, view(study, query), query)
        cell = cell_at(frame, point["x"], point["y"])
        return no_update if cell is None else change_query(search, concept=cell[0], arm=cell[1])


def _legend(frame: pd.DataFrame) -> Component:
    keys = {}
    if frame["status"].isin(UNCLEAR).any():
        keys["key-hatched"] = HATCHED
    if notes := untested_notes(frame):
        keys["key-dotted"] = f"too few pairs for a test ({' '.join(notes).rstrip('.')})"
    if (frame["status"] == "undefined").any():
        keys["key-undefined"] = "undefined"
    if "planted" in frame:
        keys["key-planted"] = "planted"
    return legend(keys)


def facts(result: xr.Dataset, frame: pd.DataFrame) -> Component:
    """The amount of data behind a map and its certainty: a row per concept, how far others agree, and notes."""
    rows = [
        [
            row["concept"],
            short_sample(row, result.sizes["seed"]),
            interval(row, "denominator"),
            interval(row, "stability"),
            band(row),
        ]
        for _, row in frame.drop_duplicates("concept").iterrows()
    ]
    tables = [_table({name: FACTS[name] for name in list(FACTS)[:4]}, rows)]
    scorer = str(frame["scorer"].iloc[0])
    if others := [name for name in scorers(result) if name != scorer]:
        agreed = {concept: agreement(result, concept, scorer) for concept, *_ in rows}
        heads = {f"agreement with {name}": FACTS["agreement"] for name in others}
        tables.append(
            _table(heads, [[concept, *map(agreed_text, agreed[concept].values())] for concept in agreed])
        )
    notes = html.Ul([html.Li(note) for note in _notes(result, frame)], className="notes")
    return html.Div([*map(wide_table, tables), notes], className="facts")


def _table(heads: dict[str, str], rows: list[list[str]]) -> Component:
    """A table of concepts, with an explanation of each further column."""
    named = [
        dmc.TableTh("concept"),
        *(dmc.TableTh(html.Span(name, tabIndex=0, **tip(help))) for name, help in heads.items()),
    ]
    body = [dmc.TableTr([dmc.TableTd(cell) for cell in row]) for row in rows]
    return dmc.Table(
        [dmc.TableThead(dmc.TableTr(named)), dmc.TableTbody(body)],
        verticalSpacing=3,
        horizontalSpacing=6,
        fz=12,
    )


def _notes(result: xr.Dataset, frame: pd.DataFrame) -> list[str]:
    scorer = str(frame["scorer"].iloc[0])
    note = f"Intervals: {confidence(result)} bootstrap over pairs. {_counts(frame)}"
    if n := tested_cells(result, scorer):
        note = f"p-values: {result.attrs['correction']} over the {counted(n, 'cell')} of all concepts. {note}"
    notes = [*pair_notes(frame), note]
    if not (result["role"].values == "null").any():
        notes.append("This map has no null arms.")
    if result.attrs.get("screened"):
        notes.append("The cells were screened first; only those that passed were run in full.")
    if result.attrs.get("stopped"):
        notes.append(str(result.attrs["stopped"]))
    return notes


def _counts(frame: pd.DataFrame) -> str:
    """How many of a map's cells the tests leave open, and how many have no test."""
    status = frame.loc[frame["group"] == "cell", "status"]
    unclear, tested = (int(status.isin(some).sum()) for some in (UNCLEAR, [CLEAR, *UNCLEAR]))
    sentences = [f"{unclear} of {counted(tested, 'tested cell')} {_be(unclear)} {HATCHED}."] if tested else []
    for without in (UNTESTED, "undefined", "no score", SCREENED_OUT):
        if n := int((status == without).sum()):
            sentences.append(f"{without.capitalize()}: {counted(n, 'cell')}.")
    return " ".join(sentences)


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, kind="patching")
