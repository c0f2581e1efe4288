"""Imported: vectors and tables imported into the study, and published maps beside the study's own."""

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
from dashboards.components.following import follow_study
from dashboards.components.graph import graph
from dashboards.components.notices import remarks
from dashboards.components.text import empty_state, panel, wide_table
from dashboards.context import Context
from dashboards.figures import patching_comparison
from dashboards.figures.published_map import NAMES, draw_means, maps_frame, means_frame
from dashboards.links import change_query, read_query
from dashboards.pages.page import Page, Query
from dashboards.results import faults_of_kind, has_result, is_usable, load_result
from dashboards.tables.comparison import Map, imported_map, study_map
from dashboards.tables.imported import artefacts_frame
from dashboards.tables.patching import columns, default_columns, scorers
from workbench.artefacts.written import FOLDER, Imported, imported_files, open_imported
from workbench.studies.study import Study

PATH = "/imported"
NAME = "Imported"
SENTENCE = (
    "Imported vectors and published results: which end of a concept is + and which is −, the sites they act on, and "
    "published impacts of blocks beside this study's."
)
VECTORS_HELP = (
    "A positive strength steers towards the + end. Norms are those of each step's vector; the paper's strengths assume "
    "norm 1. Strengths cannot be compared across sites, concepts or methods."
)
MAP_HELP = (
    "Published impacts have no intervals or tests, are floored at 0 and may exceed 1. Means are over each map's "
    "concepts, equally weighted. The functional set is the blocks whose mean is at least τ (0.10 in the paper)."
)
HEADINGS = {
    "concept": "concept",
    "positive": "+ end",
    "negative": "− end",
    "kind": "kind",
    "sites": "sites",
    "steps": "steps",
    "norms": "norms",
    "source": "source",
    "note": "note",
}
THRESHOLD = 0.10


def has_any(context: Context) -> bool:
    """Whether the study has imported files that this page can show."""
    study = context.study
    return bool(published_names(study)) or any((study.path / FOLDER).glob("*.safetensors"))


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if nothing has been imported."""
    study = context.study
    if not has_any(context):
        then = "This page lists imported vectors with their + and − ends, and published impacts beside this study's."
        example = f"workbench import caa SOURCE --study {shlex.quote(str(study.path))}"
        return empty_state(["Nothing imported yet."], then, example)
    parts = []
    readable, faults = _artefacts(study)
    faults += faults_of_kind(study, "published")
    if faults:
        parts.append(remarks(faults, "Some imported files cannot be shown", "red"))
    artefacts = artefacts_frame(readable)
    if len(artefacts):
        parts.append(panel("Vectors and tables", _table(artefacts), help=VECTORS_HELP))
    if _models(study):
        parts.append(panel("Published localisation", _controls(study, query), *_figures(), help=MAP_HELP))
    return dmc.Stack(parts, gap="md")


def _artefacts(study: Study) -> tuple[list[Imported], list[str]]:
    """The imported artefacts that can be read, and a sentence on each one that cannot."""
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
    return wide_table(dmc.Table([head, dmc.TableTbody(rows)], verticalSpacing=4, fz="sm"))


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
    """The values that this page accepts in its URL."""
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
    """Parse a threshold from a URL; None if it is not a finite number."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def register(app: dash.Dash, context: Context) -> None:
    """Keep map, means and sets in sync with the selection in the URL."""
    study = context.study
    follow_study(app, "imported-model", lambda: _models(study))

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
    """The study's own map of blocks, or None if it cannot be compared with the published one, and notes about it."""
    if not has_result(study, "patching-blocks"):
        return None, ["This study has no patching result for blocks to compare with."]
    try:
        result = load_result(study, "patching-blocks")
    except UserError as error:
        return None, [str(error)]
    if result.attrs["question"] != "blocks" or not columns(result):
        return None, ["This study's result 'blocks' is for a different question."]
    own = study_map(study, result, default_columns(result)[0], scorers(result)[0])
    if own.n_blocks != published.n_blocks:
        return None, [
            f"This study's network has {own.n_blocks or 'no numbered'} blocks and the paper's has "
            f"{published.n_blocks or 'no numbered ones'}: blocks do not correspond, so this study's map is left out."
        ]
    known = dict.fromkeys(own.cells.loc[own.cells["impact"].notna(), "concept"])
    return own, [f"This study's means are over {', '.join(known) or 'no concepts'}."]


def _sets(means: pd.DataFrame, threshold: float) -> list[str]:
    """The functional set of each side, in words."""
    sentences = []
    for side, part in means.groupby("side", sort=False):
        blocks = part.loc[part["functional"], "block"]
        sentences.append(f"τ = {threshold:g}, {NAMES[str(side)]}: {{{', '.join(blocks)}}}.")
    return sentences


def _metrics(study: Study, model: str) -> list[str]:
    """Sentences on the metrics used for the published concepts."""
    result = load_published_map(study, model)
    concepts: dict[str, list[str]] = {}
    for concept, metric in zip(result["concept"].values, result["metric"].values, strict=True):
        concepts.setdefault(str(metric), []).append(str(concept))
    return [
        f"Published impacts by {metric}: {', '.join(names)}." for metric, names in concepts.items() if metric
    ]


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, is_linked=has_any)
