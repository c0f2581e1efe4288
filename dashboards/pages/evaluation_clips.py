"""The clips behind a point of an evaluation: one prompt of its trial, unsteered, steered and real, by ear."""

from collections.abc import Callable
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.components.ab import ab_player
from dashboards.links import change_query, read_query
from dashboards.pages.page import Query
from dashboards.pages.steered_clips import chosen_run, run_id, runs_of, steered_sides
from dashboards.results import load_result
from workbench.studies.study import Study

SELECTION = ("pair", "seed")
MOST_PAIRS = 200

Heard = Callable[[Study, Query], tuple[str, str, str, str] | None]
"""The trial, arm, concept and judge whose clips the URL asks for; None if there are none."""


def layout() -> Component:
    """The prompt's control and the player, hidden until a point is chosen."""
    prompt = dmc.Select(id="evaluation-prompt", label="prompt", data=[], size="xs", searchable=True, mt="xs")
    return html.Div(
        [html.Div(prompt, id="evaluation-prompt-holder", hidden=True), ab_player("evaluation-player")]
    )


def register(app: dash.Dash, study: Study, heard: Heard) -> None:
    """Play the clips of the point and prompt in the URL."""

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("evaluation-prompt", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose_prompt(value: str | None, search: str | None) -> Any:
        query = read_query(search)
        pair, _, seed = (value or "").partition("-")
        is_shown = value == run_id(query.get("pair"), query.get("seed"))
        if not seed or is_shown or ("pair" not in query and value == _first(study, heard(study, query))):
            return no_update
        return change_query(search, pair=pair, seed=seed)

    @app.callback(
        Output("evaluation-prompt", "data"),
        Output("evaluation-prompt", "value"),
        Output("evaluation-prompt-holder", "hidden"),
        Output("evaluation-player", "data-sides"),
        Input("url", "search"),
    )
    def show_clips(search: str | None) -> tuple[list[dict[str, str]], str | None, bool, str]:
        query = read_query(search)
        asked = heard(study, query)
        if asked is None:
            return [], None, True, "{}"
        trial, arm, concept, judge = asked
        result = load_result(study, f"steering-{trial}")
        runs = runs_of(result, arm, concept, judge)
        run = chosen_run(runs, query)
        prompts = [
            {"value": row.id, "label": f"pair {row.pair}, seed {row.seed}: {row.corrupt_prompt}"}
            for row in runs.head(MOST_PAIRS).itertuples()
        ]
        return prompts, str(run["id"]), False, steered_sides(study, result, run, arm, concept, judge)


def _first(study: Study, asked: tuple[str, str, str, str] | None) -> str:
    """The run that is shown where the URL names none."""
    if asked is None:
        return ""
    trial, arm, concept, judge = asked
    return str(runs_of(load_result(study, f"steering-{trial}"), arm, concept, judge)["id"].iloc[0])
