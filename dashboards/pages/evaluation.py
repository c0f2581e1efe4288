"""Evaluation: methods of steering side by side, at equal distance, with all that makes numbers hard to believe."""

from dataclasses import replace
from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from dashboards.components.export import figure_data
from dashboards.components.graph import clicked_point, figure_panel
from dashboards.components.grid import WRAPPED, number_column, row_grid, selected_row
from dashboards.components.no_results import no_results
from dashboards.components.notices import remarks
from dashboards.components.selects import Choice, Selects
from dashboards.components.text import panel, with_code
from dashboards.context import Context
from dashboards.figures import alignment_preservation, leakage, method_ranking
from dashboards.figures.alignment_preservation import AlignmentPreservationSpec
from dashboards.figures.leakage import LeakageSpec
from dashboards.figures.method_ranking import ALL, MethodRankingSpec
from dashboards.links import address, change_query, read_query, write_query
from dashboards.numbers import span
from dashboards.pages import evaluation_clips, steering
from dashboards.pages.page import Page, Query
from dashboards.results import (
    benchmark_names,
    load_result,
    name_to_show,
    trial_name,
)
from dashboards.tables.benchmark import DIRECTIONS, method_of, methods, published_frame, ranking_frame
from dashboards.tables.patching import scorers
from dashboards.wording import benchmark_sample, deaf_sentences, distance_sentence, interval
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
TABLE_HELP = (
    "Each method at the strength that other prompts and other judges chose, and at equal distance. Kept: how much of "
    "the unsteered clip is kept, from 1 to 0 (as far from it as the real prompt's clip). Together: the harmonic mean "
    "of what is reached and kept. Rank: at equal distance. A row shows its curves alone."
)
AREAS_HELP = "TADA's areas and smoothness: means over all clips without intervals, up to the distance that PCI reaches."
NUMBERS = {
    "strength": ("strength", ".3~g", "The strength that other prompts and other judges chose."),
    "effect": ("change", ".2f", "The change in the judge's score from the unsteered clips."),
    "preservation": (
        "kept",
        ".2f",
        "How much of the unsteered clip is kept: 1, all; 0, it is as far away as the real prompt's.",
    ),
    "harmonic": (
        "together",
        ".2f",
        "The harmonic mean of what is reached of the real prompt's change, and kept.",
    ),
    "strength_at": (
        "strength",
        ".2~g",
        "The strength that makes the distance at which methods are compared.",
    ),
    "ratio_at": ("of the real", ".2f", "The change as a fraction of the one that the real prompt makes."),
    "rank": (
        "rank",
        ".1f",
        "The place among the methods: 1 is the best. Controls at other blocks have none.",
    ),
}
"""The columns of numbers: their headings, their d3 formats, and what they are."""
WIDTHS = dict(zip(NUMBERS, (76, 68, 56, 78, 76, 92, 56), strict=True))
RANDOM_HELP = "Where random vectors at the same blocks lie, as a fraction of the real prompt's change."
INTERVALS = ("effect", "ratio_at", "rank")
AREAS = {
    "area": "area",
    "area_positive": "towards",
    "area_negative": "away",
    "smoothness": "smoothness",
    "cutoff_positive": "cutoff, towards",
    "cutoff_negative": "cutoff, away",
}
FIELDS = ("concept", "direction", "scorer", "measure", "method")
SELECTS = Selects(
    "evaluation",
    ("result", *FIELDS),
    clears={"result": (*FIELDS, "arm", *evaluation_clips.SELECTION)},
)
EVERY = "all"


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
        dmc.GridCol(panel("Methods", _grid(), help=TABLE_HELP), span=24),
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
    is_published = _is_published(_result(study, query))
    strict = html.Div(dmc.Grid(columns, columns=24, gutter="md"), id="evaluation-strict", hidden=is_published)
    areas = html.Div(
        panel("TADA's areas", _areas_grid(), help=AREAS_HELP),
        id="evaluation-published",
        hidden=not is_published,
    )
    return html.Div([*head, strict, areas])


def _with(below: Component, panel: Component) -> Component:
    """A panel with something below its graph."""
    panel.children.append(below)
    return panel


def _grid() -> Component:
    numbers = {
        name: {
            "field": name,
            "headerName": heading,
            "headerTooltip": meaning,
            "width": WIDTHS[name],
            **number_column(format),
            **({"tooltipField": f"{name}_text"} if name in INTERVALS else {}),
        }
        for name, (heading, format, meaning) in NUMBERS.items()
    }
    at_distance = [
        *(numbers[name] for name in ("strength_at", "ratio_at")),
        {"field": "ratio_span", "headerName": "of the real, 95 %", "width": 136},
        {"field": "random", "headerName": "random vectors", "headerTooltip": RANDOM_HELP, "width": 130},
        numbers["rank"],
        {"field": "rank_span", "headerName": "rank, 95 %", "width": 92},
    ]
    chosen = [numbers[name] for name in ("strength", "effect", "preservation", "harmonic")]
    columns: list[dict[str, Any]] = [
        {"field": "concept", "width": 90, "tooltipField": "concept"},
        {
            "field": "way",
            "headerName": "method",
            "flex": 1,
            "minWidth": 150,
            "tooltipField": "way",
            "cellClass": "three-lines",
            **WRAPPED,
        },
        {"headerName": "at the chosen strength", "children": chosen},
        {"headerName": "at equal distance", "children": at_distance},
    ]
    return row_grid("evaluation-grid", columns, height=300)


def _areas_grid() -> Component:
    columns: list[dict[str, Any]] = [
        {"field": "concept", "width": 110},
        {"field": "way", "headerName": "method", "flex": 1, "minWidth": 170},
        *(
            {"field": name, "headerName": heading, "width": 122, **number_column(".3f", "undefined")}
            for name, heading in AREAS.items()
        ),
    ]
    return row_grid("evaluation-areas", columns, height=420)


def _name(study: Study, query: Query) -> str:
    return name_to_show(study, "benchmark", query.get("result", ""))


def _result(study: Study, query: Query) -> xr.Dataset:
    return load_result(study, f"benchmark-{_name(study, query)}")


def _is_published(result: xr.Dataset) -> bool:
    return str(result.attrs["protocol"]) == "published"


def _choices(result: xr.Dataset) -> dict[str, Choice]:
    """The choices that depend on the result, with the default as the value."""
    concepts = [str(name) for name in result["concept"].values]
    several = [{"value": EVERY, "label": ALL}] if len(concepts) > 1 else []
    every_method: list[Any] = [{"value": EVERY, "label": "all methods"}, *methods(result)]
    measures = [str(name) for name in result["measure"].values]
    return {
        "concept": Choice("concept", [*concepts, *several], concepts[0]),
        "direction": Choice("direction", list(DIRECTIONS.values()), "towards"),
        "scorer": Choice("judge", scorers(result), _hearing(result)),
        "measure": Choice("distance", measures, measures[0]),
        "method": Choice("curves and leakage of", every_method, EVERY),
    }


def _selects(study: Study, query: Query) -> dict[str, Choice]:
    """What the selects offer and show."""
    now, found = view(study, query), _choices(_result(study, query))
    shown = {field: replace(choice, value=now[field]) for field, choice in found.items()}
    return {"result": Choice("result", benchmark_names(study), now["result"]), **shown}


def _hearing(result: xr.Dataset) -> str:
    """The judge to begin with: the first of those that tell the real prompts apart in most cases."""
    if _is_published(result):
        return scorers(result)[0]
    return min(scorers(result), key=lambda name: int((result["reason"].sel(scorer=name) != "").sum()))


def _values(choices: list[Any]) -> list[str]:
    return [one["value"] if isinstance(one, dict) else one for one in choices]


def view(study: Study, query: Query) -> dict[str, str]:
    """What the URL selects, by the names of its parts; unknown values are the defaults.

    Raises:
        UserError: the study has no evaluation (any more).
    """
    found = {"result": _name(study, query)}
    for field, choice in _choices(_result(study, query)).items():
        found[field] = query[field] if query.get(field) in _values(choice.data) else str(choice.value)
    return found


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    study = context.study
    if not benchmark_names(study):
        return {}
    result = _result(study, query)
    known = {field: _values(choice.data) for field, choice in _choices(result).items()}
    arms = [] if _is_published(result) else _arms(result)
    trial = _trial(study, query)
    runs = {} if trial is None else load_result(study, f"steering-{trial[0]}")
    numbers = {name: [str(one) for one in runs[name].values] if trial else [] for name in ("pair", "seed")}
    return {"result": benchmark_names(study), **known, "arm": arms, **numbers}


def _trial(study: Study, query: Query) -> tuple[str, str, str, str] | None:
    """The trial, arm, concept and judge of the clips that the URL asks for; None if there are none."""
    if not benchmark_names(study):
        return None
    now, result, arm = view(study, query), _result(study, query), query.get("arm", "")
    if _is_published(result) or arm not in _arms(result):
        return None
    concept = str(result["concept"].values[0]) if now["concept"] == EVERY else now["concept"]
    name = trial_name(study, result, concept, now["direction"])
    if not name:
        return None
    trial = load_result(study, f"steering-{name}")
    has_all = arm in trial["arm"].values and now["scorer"] in trial["scorer"].values
    return (name, arm, concept, now["scorer"]) if has_all else None


def _arms(result: xr.Dataset) -> list[str]:
    return [str(arm) for arm in result["arm"].values[result["role"].values == "cell"]]


def register(app: dash.Dash, context: Context) -> None:
    """Keep controls, table and figures in sync with the selection in the URL."""
    study = context.study
    evaluation_clips.register(app, study, _trial)
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
        now, result = view(study, query), _result(study, query)
        is_published = _is_published(result)
        return (
            is_published,
            not is_published,
            warnings(result, now),
            facts(result, now),
            [] if is_published else _rows(result, now),
            [],
            _areas(result, now) if is_published else [],
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
        now, result = view(study, query), _result(study, query)
        if _is_published(result):
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


def warnings(result: xr.Dataset, now: dict[str, str]) -> Component | None:
    """An alert on what makes the numbers look too good, and on those that are hidden; None without any."""
    concept = "" if now["concept"] == EVERY else now["concept"]
    told = [
        line
        for line in str(result.attrs.get("warnings", "")).splitlines()
        if not concept or line.startswith(f"{concept}: ")
    ]
    hidden = [] if _is_published(result) else deaf_sentences(result, now["scorer"], concept)
    return remarks([*told, *hidden], "Numbers to be careful with", "yellow")


def facts(result: xr.Dataset, now: dict[str, str]) -> Component:
    """What the numbers rest on, in words: the sample, the controls of the judge, and what is at hand."""
    if _is_published(result):
        sentence = (
            "The published protocol: means over all clips, without intervals, controls or nulls. Run "
            "`workbench steer evaluate` without `--protocol published` for those."
        )
        return html.Ul([html.Li(with_code(sentence))], className="notes")
    concept = "" if now["concept"] == EVERY else now["concept"]
    sentences = [
        benchmark_sample(result, now["scorer"], now["measure"]),
        distance_sentence(result, now["measure"], concept),
        *_controls_of(result, now),
    ]
    if now["concept"] == EVERY:
        sentences.append(
            f"The curves are those of {result['concept'].values[0]}: choose a concept to see its own."
        )
    return html.Ul([html.Li(sentence) for sentence in sentences], className="notes")


def _controls_of(result: xr.Dataset, now: dict[str, str]) -> list[str]:
    """Sentences on how far the judge tells the real prompts of the chosen concepts apart, in the chosen direction."""
    (sign,) = (sign for sign, name in DIRECTIONS.items() if name == now["direction"])
    one = result.sel(sign=sign, scorer=now["scorer"])
    names = [now["concept"]] if now["concept"] != EVERY else one["concept"].values.tolist()
    ends = ("control", "control_lo", "control_hi")
    differences = {name: {end: float(one[end].sel(concept=name)) for end in ends} for name in names}
    return [
        f"Positive control, {name}: the real prompts' scores differ by {interval(difference, 'control')}."
        for name, difference in differences.items()
    ]


def _rows(result: xr.Dataset, now: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of the table, the best at equal distance first."""
    table = ranking_frame(result, now["scorer"], now["measure"])
    table = table[table["direction"] == now["direction"]]
    if now["concept"] != EVERY:
        table = table[table["concept"] == now["concept"]]
    rows = []
    for row in table.sort_values("rank", kind="stable", na_position="last").to_dict("records"):
        shown: dict[str, Any] = {
            "id": f"{row['concept']} {row['way']}",
            "way": str(row["way"]),
            "concept": str(row["concept"]),
        }
        shown |= {name: None if pd.isna(row[name]) else float(row[name]) for name in NUMBERS}
        shown |= {f"{name}_text": interval(row, name) for name in INTERVALS}
        shown["ratio_span"] = _span(row, "ratio_at")
        shown["rank_span"] = _span(row, "rank", 1)
        has_band = not pd.isna(row["band_lo"]) and row["control"] > 0
        shown["random"] = (
            span(row["band_lo"] / row["control"], row["band_hi"] / row["control"]) if has_band else ""
        )
        rows.append(shown)
    return rows


def _span(row: dict[Any, Any], name: str, digits: int = 2) -> str:
    return "" if pd.isna(row[f"{name}_lo"]) else span(row[f"{name}_lo"], row[f"{name}_hi"], digits)


def _areas(result: xr.Dataset, now: dict[str, str]) -> list[dict[str, Any]]:
    table = published_frame(result, now["scorer"], now["measure"])
    if now["concept"] != EVERY:
        table = table[table["concept"] == now["concept"]]
    table = table.assign(id=table["concept"] + " " + table["way"])
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _heard(study: Study, result: xr.Dataset, now: dict[str, str], concept: str, arm: str) -> Component | None:
    """A link to the clips of the arm that was clicked, on the page of its trial."""
    if arm not in _arms(result):
        return None
    trial = trial_name(study, result, concept, now["direction"])
    if not trial:
        return dmc.Text(
            f"{arm}: the study does not have the trial of its clips any more.", size="sm", c="dimmed"
        )
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
