"""One way of steering at one strength: its numbers, its prompts, and their clips at all strengths side by side."""

from collections.abc import Callable
from typing import Any

import dash
import xarray as xr
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.components.ab import ab_player
from dashboards.components.grid import WRAPPED, kept_selection, number_column, row_grid, selected_row
from dashboards.components.text import details, numbers, panel
from dashboards.figures.dose_response import DoseResponseSpec
from dashboards.links import change_query, read_query
from dashboards.numbers import p_value
from dashboards.pages.page import Query
from dashboards.pages.steered_clips import chosen_run, run_id, runs_of, steered_sides
from dashboards.results import load_result
from dashboards.tables.steering import doses_frame
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
        shown = run_id(query["pair"], query["seed"]) if {"pair", "seed"} <= set(query) else first
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
        State("steered-grid", "selectedRows"),
    )
    def show_arm(search: str | None, rows: Any) -> tuple[Any, ...]:
        query = read_query(search)
        spec = view(study, query)
        result, arm = load_result(study, spec.result_name), query.get("arm", "")
        if arm not in choices(result)["arm"]:
            return True, False, None, [], [], "{}"
        concept = spec.concept or str(result.attrs["concept"])
        runs = runs_of(result, arm, concept, spec.scorer)
        run = chosen_run(runs, query)
        return (
            False,
            True,
            _numbers(result, arm, concept, spec.scorer),
            runs.astype(object).where(runs.notna(), None).to_dict("records"),
            kept_selection(rows, run["id"]),
            steered_sides(study, result, run, arm, concept, spec.scorer),
        )


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
