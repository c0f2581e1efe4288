"""Steering: what each way of steering does at each strength, to its own concept and to others."""

from typing import Any

import dash
import dash_mantine_components as dmc
import xarray as xr
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from analyses.steering.checks import BACKWARDS, NOT_CLEAR, RIGHT, TOO_FEW
from cache.wording import counted
from dashboards.components.export import figure_data
from dashboards.components.graph import figure_panel, last_click
from dashboards.components.no_results import no_results
from dashboards.components.selects import Choice, Selects
from dashboards.components.text import legend
from dashboards.context import Context
from dashboards.drawing.grids import cell_at
from dashboards.figures import dose_response, ladder, steering_effects
from dashboards.figures.dose_response import DoseResponseSpec
from dashboards.figures.ladder import LadderSpec
from dashboards.figures.steering_effects import SteeringEffectsSpec
from dashboards.links import change_query, read_query
from dashboards.packs import pack_names
from dashboards.pages import steering_arm, steering_sliders, steering_vectors
from dashboards.pages.page import Page, Query
from dashboards.pages.steering_words import words
from dashboards.results import load_result, name_to_show, shown_name, steering_names
from dashboards.sliders import sliders
from dashboards.tables.patching import UNCLEAR, UNTESTED, scorers
from dashboards.tables.steering import checks_frame, strengths
from dashboards.wording import STRENGTH_1, from_to, positive_control, steering_notes, steering_sample
from workbench.studies.study import Study

PATH = "/steering"
NAME = "Steering"
SENTENCE = (
    "What steering does to prompts that it was not computed from: how far each strength moves the concept's score, "
    "what it does to other concepts, and how it compares with random vectors and with the real prompt."
)
DOSE_HELP = (
    "The change in the score from the unsteered run, the mean over pairs and seeds, with its interval. Hollow: not "
    "significant after correction, or inside the null band. Shaded: the null band of random vectors. Dashed: the "
    "prompt that names the positive value. Points at one strength are moved apart. Click a point to hear its clips. "
    f"{STRENGTH_1} What it is of a vector stands below, at “strength 1 adds”."
)
LADDER_HELP = (
    "How much of the real prompt's change each way of steering makes: 0 is the unsteered run, 1 the real prompt. On "
    "the recovery ladder, each row down to the vector knows less than the row above it. Grey: the null band of random "
    "vectors."
)
EFFECTS_HELP = (
    "The change in the score for every concept, divided by the change that the real prompt makes in the steered one. A "
    "good way of steering changes the first column only. Hatched: not significant, or inside the null band."
)
BEST = "best"
SELECTS = Selects(
    "steering",
    ("result", "scorer", "shown", "strength"),
    clears={"result": ("scorer", "shown", "strength", *steering_arm.SELECTION)},
)


def layout(context: Context, query: Query) -> Component:
    """The page: the trials, or instructions if there are none, and below them the vectors and concept sliders."""
    study = context.study
    kept = [steering_vectors.layout(study) if pack_names(study) else None, steering_sliders.layout(study)]
    panels = [panel for panel in kept if panel is not None]
    if not shown_name(study, "steering"):
        return dmc.Stack([_nothing(study), *panels], gap="md")
    left = [
        html.Div(
            [
                SELECTS.layout(_choices(study, query)),
                html.Div(id="steering-facts"),
                html.Div(id="steering-legend"),
            ]
        ),
    ]
    dose = figure_panel("dose-response", "Dose and response", DOSE_HELP, *left)
    rungs = figure_panel("ladder", "How much comes back", LADDER_HELP)
    leaks = figure_panel("steering-effects", "What it does to other concepts", EFFECTS_HELP)
    columns = [
        dmc.GridCol(dmc.Stack([dose, rungs, leaks], gap="md"), span={"base": 24, "lg": 13}),
        dmc.GridCol(steering_arm.layout(), span={"base": 24, "lg": 11}, className="beside"),
        *(dmc.GridCol(panel, span=24) for panel in panels),
    ]
    return dmc.Grid(columns, columns=24, gutter="md")


def _nothing(study: Study) -> Component:
    then = "This page shows what steering does at each strength, to its own concept and to others."
    made = steering_vectors.commands(study)
    return no_results(study, "steering", "No steering results yet.", then, made)


def view(study: Study, query: Query) -> DoseResponseSpec:
    """The result, scorer and concept selected in the URL; unknown values fall back to the default.

    Raises:
        UserError: the study has no steering result (any more).
    """
    name = name_to_show(study, "steering", query.get("result", ""))
    result = load_result(study, f"steering-{name}")
    asked = {"scorer": query.get("scorer"), "concept": query.get("shown")}
    known = {"scorer": scorers(result), "concept": [str(one) for one in result["concept"].values]}
    return DoseResponseSpec(
        name=name, **{field: value for field, value in asked.items() if value in known[field]}
    )


def _strength(result: xr.Dataset, query: Query) -> float | None:
    """The strength selected in the URL; None for the best of each way of steering."""
    return {f"{value:g}": value for value in strengths(result)}.get(query.get("strength", BEST))


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    study = context.study
    known = {"result": steering_names(study), **steering_vectors.choices(study, query)}
    if not shown_name(study, "steering"):
        return known
    result = load_result(study, view(study, query).result_name)
    return {
        **known,
        "scorer": scorers(result),
        "shown": [str(concept) for concept in result["concept"].values],
        "strength": [BEST, *(f"{value:g}" for value in strengths(result))],
        **steering_arm.choices(result),
    }


def _choices(study: Study, query: Query) -> dict[str, Choice]:
    spec = view(study, query)
    result = load_result(study, spec.result_name)
    strength = _strength(result, query)
    steered = str(result.attrs["concept"])
    concepts = [
        {"value": str(name), "label": f"{name} (steered)" if name == steered else str(name)}
        for name in result["concept"].values
    ]
    doses = [{"value": BEST, "label": "each at its best"}, *(f"{value:g}" for value in strengths(result))]
    return {
        "result": Choice("result", steering_names(study), spec.name),
        "scorer": Choice("scorer", scorers(result), spec.scorer or scorers(result)[0]),
        "shown": Choice("concept", concepts, spec.concept or steered),
        "strength": Choice(
            "strength of the comparison", doses, BEST if strength is None else f"{strength:g}"
        ),
    }


def register(app: dash.Dash, context: Context) -> None:
    """Keep controls, figures and the selected arm in sync with the selection in the URL."""
    study = context.study
    steering_arm.register(app, study, view)
    steering_vectors.register(app, study)
    SELECTS.register(app, lambda query: _choices(study, query))

    @app.callback(
        Output("dose-response-graph", "figure"),
        Output({"type": "figure", "key": "dose-response"}, "data"),
        Output("steering-legend", "children"),
        Output("steering-facts", "children"),
        Output("ladder-graph", "figure"),
        Output({"type": "figure", "key": "ladder"}, "data"),
        Output("steering-effects-graph", "figure"),
        Output({"type": "figure", "key": "steering-effects"}, "data"),
        Input("url", "search"),
    )
    def draw(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        spec = view(study, query)
        result, arm = load_result(study, spec.result_name), query.get("arm", "")
        strength = _strength(result, query)
        of_result = {"name": spec.name, "scorer": spec.scorer, "strength": strength}
        doses = dose_response.response_frame(result, spec.concept, spec.scorer)
        rungs = ladder.rungs_frame(result, spec.scorer, strength)
        leaks = steering_effects.leaks_frame(result, spec.scorer, strength)
        shown = spec.concept or str(result.attrs["concept"])
        return (
            dose_response.draw_screen(doses, arm),
            figure_data("dose-response", spec),
            _legend(doses),
            html.Div([facts(result, spec.scorer), words(map(str, result["row"].values), spec.name)]),
            ladder.draw_screen(rungs, arm),
            figure_data("ladder", LadderSpec(**of_result)),
            steering_effects.draw_screen(leaks, (shown, arm)),
            figure_data("steering-effects", SteeringEffectsSpec(**of_result)),
        )

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        *(
            Input(f"{figure}-graph", "clickData")
            for figure in ("dose-response", "ladder", "steering-effects")
        ),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select(*given: Any) -> Any:
        """Select what was clicked last; with a callback for each figure, one could overtake another."""
        *clicks, search = given
        clicked = last_click(*clicks)
        if clicked is None:
            return no_update
        place, point = clicked
        changes = _cell(study, read_query(search), point) if place == 2 else _arm(point)
        return change_query(search, **changes) if changes else no_update


def _arm(point: dict[str, Any]) -> dict[str, str | None]:
    """The changes of the URL for a point of a curve or of the ladder; none if it is the unsteered run's."""
    about = point.get("customdata")
    return {"arm": about[0]} if isinstance(about, list) and isinstance(about[0], str) else {}


def _cell(study: Study, query: Query, point: dict[str, Any]) -> dict[str, str | None]:
    """The changes of the URL for a place on the map of effects; none outside its cells."""
    spec = view(study, query)
    result = load_result(study, spec.result_name)
    leaks = steering_effects.leaks_frame(result, spec.scorer, _strength(result, query))
    cell = cell_at(steering_effects.frame_for_clicks(leaks), point["x"], point["y"])
    if cell is None:
        return {}
    concept, arm = cell
    return {"shown": concept, "arm": arm if arm in steering_arm.choices(result)["arm"] else None}


def _legend(doses: Any) -> Component:
    if (doses["status"] == UNTESTED).any():
        return legend({"key-hollow": "too few pairs for a test"})
    unclear = doses["status"].isin(UNCLEAR).any()
    return legend({"key-hollow": "not significant, or inside the null band"} if unclear else {})


def facts(result: xr.Dataset, scorer: str = "") -> Component:
    """What the figures rest on, in words: the sample, the positive control, the signs of the ways of steering."""
    sentences = [
        f"Steers {result.attrs['concept']} {from_to(result)}: {steering_sample(result, scorer)}.",
        positive_control(result, scorer),
        *steering_notes(result, scorer),
        _signs(result, scorer),
    ]
    return html.Ul([html.Li(sentence) for sentence in filter(None, sentences)], className="notes")


def _signs(result: xr.Dataset, scorer: str) -> str:
    checks = checks_frame(result, scorer)
    if checks.empty:
        return ""
    is_backwards = checks["verdict"] == BACKWARDS
    ways = ", ".join((checks["way"] + " (" + checks["compared"] + ")")[is_backwards])
    counts = checks["verdict"].value_counts()
    others = [f"{counts[verdict]} {verdict}" for verdict in (RIGHT, NOT_CLEAR, TOO_FEW) if verdict in counts]
    each = [*([f"backwards: {ways}"] if ways else []), *([", ".join(others)] if others else [])]
    return f"Sign check of {counted(len(checks), 'way')} of steering: {'; '.join(each)}."


def _is_linked(context: Context) -> bool:
    study = context.study
    tried = any(name.startswith("steering-") for name in study.result_names())
    return tried or bool(pack_names(study) or sliders(study))


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, _is_linked, kind="steering")
