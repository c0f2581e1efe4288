"""Imported: the vectors and tables of others that a study keeps, and published maps beside the study's own."""

import math
import shlex
from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.patching.published_map import PREFIX, load_published_map, published_names
from cache.errors import UserError
from dashboards.components.graph import graph
from dashboards.components.notices import remarks
from dashboards.components.text import empty_state, panel
from dashboards.context import Context
from dashboards.figures import patching_comparison
from dashboards.figures.published_map import NAMES, draw_means, maps_frame, means_frame
from dashboards.links import change_query, read_query
from dashboards.pages.page import Page, Query
from dashboards.results import is_usable, load_result, patching_names
from dashboards.tables.comparison import Map, imported_map, study_map
from dashboards.tables.imported import artefacts_frame
from dashboards.tables.patching import columns, default_columns, scorers
from workbench.artefacts import Imported
from workbench.artefacts.written import FOLDER, imported_files, open_imported
from workbench.studies.study import Study

PATH = "/imported"
NAME = "Imported"
SENTENCE = (
    "What others published, checked and kept with its origin: which end of a concept is + and which is −, where it "
    "acts, and the impacts of a paper's blocks beside this study's."
)
VECTORS_HELP = (
    "A positive strength leads to the + end. Norms are of each step's vector: strengths of the paper are for norm 1. "
    "Strengths of different sites, concepts or methods cannot be compared."
)
MAP_HELP = (
    "Impacts as published have no intervals and no tests, are floored at 0 and may exceed 1. Means are over the "
    "concepts of each map, every concept with the same weight; the functional set are the blocks whose mean is at "
    "least τ (0.10 in the paper)."
)
HEADINGS = {
    "concept": "concept",
    "positive": "+ is",
    "negative": "− is",
    "kind": "kind",
    "sites": "sites",
    "steps": "steps",
    "norms": "norms",
    "source": "source",
    "note": "note",
}
THRESHOLD = 0.10


def has_any(context: Context) -> bool:
    """Whether something was imported into the study that this page shows."""
    study = context.study
    return bool(published_names(study)) or any((study.path / FOLDER).glob("*.safetensors"))


def layout(context: Context, query: Query) -> Component:
    """The page, or what to do while nothing was imported."""
    study = context.study
    if not has_any(context):
        then = "Its vectors are listed here, each with its + and its − end, and published impacts beside this study's."
        example = f"workbench import caa SOURCE --study {shlex.quote(str(study.path))}"
        return empty_state("Nothing was imported yet.", then, example)
    parts = []
    readable, faults = _artefacts(study)
    if faults:
        parts.append(remarks(faults, "Some of what was imported cannot be shown", "red"))
    artefacts = artefacts_frame(readable)
    if len(artefacts):
        parts.append(panel("Vectors and tables", _table(artefacts), help=VECTORS_HELP))
    if _models(study):
        parts.append(panel("Published localisation", _controls(study, query), *_figures(), help=MAP_HELP))
    return dmc.Stack(parts, gap="md")


def _artefacts(study: Study) -> tuple[list[Imported], list[str]]:
    """The imported artefacts that can be read, and a sentence on each other one."""
    readable: list[Imported] = []
    faults: list[str] = []
    try:
        files = imported_files(study.path)
    except UserError as error:
        return [], [str(error)]
    for file in files:
        try:
            readable.append(open_imported(file))
        except UserError as error:
            faults.append(str(error))
    return readable, faults


def _table(artefacts: pd.DataFrame) -> Component:
    head = dmc.TableThead(dmc.TableTr([dmc.TableTh(title) for title in HEADINGS.values()]))
    rows = [
        dmc.TableTr([dmc.TableTd(str(row[name])) for name in HEADINGS]) for _, row in artefacts.iterrows()
    ]
    return html.Div(
        dmc.Table([head, dmc.TableTbody(rows)], verticalSpacing=4, fz="sm"), className="facts-wrap"
    )


def _controls(study: Study, query: Query) -> Component:
    models = _models(study)
    return html.Div(
        [
            dmc.Select(
                id="imported-model",
                label="model",
                data=models,
                value=_model(study, query),
                allowDeselect=False,
                size="xs",
            ),
            dmc.NumberInput(
                id="imported-threshold",
                label="threshold τ",
                value=_threshold(query),
                min=0,
                step=0.025,
                decimalScale=4,
                size="xs",
            ),
        ],
        className="controls",
    )


def _figures() -> list[Component]:
    return [html.Div(id="imported-notes"), graph("imported-means"), graph("imported-maps")]


def _model(study: Study, query: Query) -> str:
    models = _models(study)
    if not models:
        raise PreventUpdate
    return query["model"] if query.get("model") in models else models[0]


def _threshold(query: Query) -> float:
    number = _number(query.get("threshold", ""))
    return THRESHOLD if number is None else max(number, 0.0)


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """What the address may ask this page for."""
    asked = query.get("threshold", "")
    number = _number(asked)
    return {
        "model": _models(context.study),
        "threshold": [asked] if number is not None and number >= 0 else [],
    }


def _models(study: Study) -> list[str]:
    """Models of the published maps that can be shown."""
    return [model for model in published_names(study) if is_usable(study, f"{PREFIX}{model}")]


def _number(text: str) -> float | None:
    """A threshold as it stands in an address; None where it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def register(app: dash.Dash, context: Context) -> None:
    """Keep map, means and sets in step with the selection in the address."""
    study = context.study

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("imported-model", "value"),
        Input("imported-threshold", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose(model: str, threshold: float | int | str | None, search: str | None) -> Any:
        query = read_query(search)
        asked = _threshold({"threshold": str(threshold)})
        if (model, asked) == (_model(study, query), _threshold(query)):
            return no_update
        return change_query(search, model=model, threshold=f"{asked:g}")

    @app.callback(
        Output("imported-notes", "children"),
        Output("imported-means", "figure"),
        Output("imported-maps", "figure"),
        Input("url", "search"),
    )
    def show(search: str | None) -> tuple[Component, go.Figure, go.Figure]:
        query = read_query(search)
        model, threshold = _model(study, query), _threshold(query)
        published = imported_map(study, model)
        own, notes = _own(study, published)
        means = means_frame(published, own, threshold)
        sentences = [*_sets(means, threshold), *_metrics(study, model), *notes]
        items = [html.Li(sentence) for sentence in sentences]
        return (
            html.Ul(items, className="notes"),
            draw_means(means, threshold),
            patching_comparison.draw_screen(maps_frame(published, own)),
        )


def _own(study: Study, published: Map) -> tuple[Map | None, list[str]]:
    """The study's own map of blocks where it has one that a published one can stand beside, and what to say of it."""
    if "blocks" not in patching_names(study):
        return None, ["This study has no patching result of the blocks to compare with."]
    try:
        result = load_result(study, "patching-blocks")
    except UserError as error:
        return None, [str(error)]
    if result.attrs["question"] != "blocks" or not columns(result):
        return None, ["This study's result 'blocks' asks something else."]
    own = study_map(study, result, default_columns(result)[0], scorers(result)[0])
    if own.n_blocks != published.n_blocks:
        return None, [
            f"This study's network has {own.n_blocks or 'other'} blocks, that of the paper "
            f"{published.n_blocks or 'other ones'}: the same number is not the same place, so its map is left out."
        ]
    known = dict.fromkeys(own.cells.loc[own.cells["impact"].notna(), "concept"])
    return own, [f"Means of this study are over {', '.join(known) or 'no concept'}."]


def _sets(means: pd.DataFrame, threshold: float) -> list[str]:
    """The functional set of each side, in words."""
    sentences = []
    for side, part in means.groupby("side", sort=False):
        blocks = part.loc[part["functional"], "block"]
        sentences.append(f"τ = {threshold:g}, {NAMES[str(side)]}: {{{', '.join(blocks)}}}.")
    return sentences


def _metrics(study: Study, model: str) -> list[str]:
    """Which metric each published concept was measured with."""
    result = load_published_map(study, model)
    concepts: dict[str, list[str]] = {}
    for concept, metric in zip(result["concept"].values, result["metric"].values, strict=True):
        concepts.setdefault(str(metric), []).append(str(concept))
    return [f"Published by {metric}: {', '.join(names)}." for metric, names in concepts.items() if metric]


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, is_linked=has_any)
