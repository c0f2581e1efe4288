"""One way of steering at one strength: its numbers, its prompts, and their clips at all strengths side by side."""

from collections.abc import Callable
from typing import Any

import dash
import pandas as pd
import xarray as xr
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.steering.effects import UNSTEERED
from dashboards.components.ab import Side, ab_player, ab_sides
from dashboards.components.grid import WRAPPED, number_column, row_grid, selected_row
from dashboards.components.text import details, numbers, panel
from dashboards.differences import marked
from dashboards.figures.dose_response import DoseResponseSpec
from dashboards.links import change_query, read_query
from dashboards.numbers import fixed, p_value
from dashboards.pages.page import Query
from dashboards.results import load_result, steering_names
from dashboards.tables.steering import POSITIVE, clips_frame, doses_frame, steered_frame
from dashboards.wording import band, interval
from workbench.studies.study import Study

SELECTION = ("arm", "pair", "seed")
SIDE_WIDTHS = {"unsteered": 86, "steered": 70, "real": 58}
HELP = "One way of steering at one strength: its numbers, its prompts, and the clips of one prompt at every strength."

View = Callable[[Study, Query], DoseResponseSpec]


def layout() -> Component:
    """The panel, empty until an arm is selected."""
    columns = [
        {"field": "pair", "width": 42},
        {"field": "seed", "width": 46},
        {"field": "noise_seed", "headerName": "noise", "width": 88, **WRAPPED},
        *(
            {"field": side, "width": width, **number_column(".3f", "no score")}
            for side, width in SIDE_WIDTHS.items()
        ),
        {
            "field": "corrupt_prompt",
            "headerName": "prompt",
            "flex": 1,
            "minWidth": 90,
            "tooltipField": "corrupt_prompt",
            **WRAPPED,
        },
    ]
    body = details(
        "steered",
        "Click a point to see its numbers and prompts, and to hear the clips at every strength.",
        [
            html.Div(id="steered-numbers"),
            row_grid("steered-grid", columns, height=240),
            ab_player("steered-players"),
        ],
    )
    return panel("Prompts and clips", body, help=HELP)


def choices(result: xr.Dataset) -> dict[str, list[str]]:
    """The values that the panel accepts in the page's URL."""
    return {
        "arm": [str(name) for name in result["arm"].values[result["role"].values == "cell"]],
        "pair": [str(pair) for pair in result["pair"].values],
        "seed": [str(seed) for seed in result["seed"].values],
    }


def register(app: dash.Dash, study: Study, view: View) -> None:
    """Show the arm, the pair and the seed selected in the URL; `view` reads result, scorer and concept from it."""

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("steered-grid", "selectedRows"),
        State("steered-grid", "rowData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_run(rows: Any, runs: list[dict[str, Any]], search: str | None) -> Any:
        query, row = read_query(search), selected_row(rows)
        if row is None:
            return no_update
        first = runs[0]["id"] if runs else None
        shown = _run_id(query["pair"], query["seed"]) if {"pair", "seed"} <= set(query) else first
        if row["id"] == shown:
            return no_update
        return change_query(search, pair=row.get("pair"), seed=row.get("seed"))

    @app.callback(
        Output("steered", "hidden"),
        Output("steered-hint", "hidden"),
        Output("steered-numbers", "children"),
        Output("steered-grid", "rowData"),
        Output("steered-grid", "selectedRows"),
        Output("steered-players", "data-sides"),
        Input("url", "search"),
    )
    def show_arm(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        if not steering_names(study):  # any more
            raise PreventUpdate
        spec = view(study, query)
        result, arm = load_result(study, spec.result_name), query.get("arm", "")
        if arm not in choices(result)["arm"]:
            return True, False, None, [], [], "{}"
        concept = spec.concept or str(result.attrs["concept"])
        runs = steered_frame(result, arm, concept, spec.scorer)
        runs["noise_seed"] = runs["noise_seed"].astype(str)  # JavaScript integers are exact up to 2⁵³
        runs["id"] = [_run_id(pair, seed) for pair, seed in zip(runs["pair"], runs["seed"], strict=True)]
        chosen = runs[runs["id"] == _run_id(query.get("pair"), query.get("seed"))]
        run = (runs if chosen.empty else chosen).iloc[0]
        return (
            False,
            True,
            _numbers(result, arm, concept, spec.scorer),
            runs.astype(object).where(runs.notna(), None).to_dict("records"),
            {"ids": [run["id"]]},
            _sides(study, result, run, arm, concept, spec.scorer),
        )


def _run_id(pair: object, seed: object) -> str:
    return f"{pair}-{seed}"


def _numbers(result: xr.Dataset, arm: str, concept: str, scorer: str) -> Component:
    doses = doses_frame(result, scorer)
    dose = doses[(doses["arm"] == arm) & (doses["concept"] == concept)].iloc[0]
    shown = {
        "steering": str(dose["way"]),
        "strength": f"{dose['strength']:g}".replace("-", "−"),
        f"change in {concept}, 95 % interval": interval(dose, "effect", 3),
        "null band": band(dose),
        "p, adjusted": f"{p_value(dose['p'])}, {p_value(dose['p_adjusted'])}",
        "verdict": str(dose["status"]),
    }
    helps = {
        "null band": "The central 95 % of the changes that random vectors of the same norm make at this strength.",
        "p, adjusted": "Sign-flip test over pairs; then corrected over the doses of this concept.",
    }
    return numbers(shown, helps)


def _sides(study: Study, result: xr.Dataset, run: pd.Series, arm: str, concept: str, scorer: str) -> str:
    way = str(result["row"].sel(arm=arm).item())
    clips = clips_frame(result, way, int(run["pair"]), int(run["seed"]), concept, scorer).to_dict("records")
    prompts = {
        POSITIVE: marked(run["clean_prompt"], run["corrupt_prompt"]),
        UNSTEERED: marked(run["corrupt_prompt"], run["clean_prompt"]),
    }
    sides = [
        Side(
            name=_side_name(clip),
            detail="no score" if pd.isna(clip["score"]) else fixed(clip["score"], 3),
            note=prompts.get(clip["arm"], prompts[UNSTEERED]),
            path=str(clip["audio"]),
            strength=None if clip["arm"] == POSITIVE else float(clip["strength"]),
        )
        for clip in clips
    ]
    caption = (
        f"{way}: pair {run['pair']}, noise of seed {run['noise_seed']}. The number is the score for {concept}. All "
        "clips start from the same initial noise."
    )
    heard = next(_side_name(clip) for clip in clips if clip["arm"] == arm)
    return ab_sides(study, sides, study.spec.settings.duration, caption, heard)


def _side_name(clip: dict[Any, Any]) -> str:
    runs = {POSITIVE: "real", UNSTEERED: "unsteered"}
    return runs.get(clip["arm"], f"× {clip['strength']:g}".replace("-", "−"))
