"""The clips behind a point of an evaluation: one prompt of its trial, unsteered, steered and real, by ear."""

from collections.abc import Callable

import dash
import pandas as pd
import xarray as xr
from dash import Input, Output, html
from dash.development.base_component import Component

from dashboards.components.ab import ab_player
from dashboards.components.selects import Choice, Selects
from dashboards.links import read_query
from dashboards.pages.page import Query
from dashboards.pages.steered_clips import chosen_run, runs_of, steered_sides
from dashboards.results import load_result
from workbench.studies.study import Study

SELECTION = ("pair", "seed")
MOST_PAIRS = 200
NO_PROMPT = Choice("prompt", [], None, is_hidden=True)

Heard = Callable[[Study, Query], tuple[str, str, str, str] | None]
"""The trial, arm, concept and judge whose clips the URL asks for; None if there are none."""


def _run(chosen: dict[str, str | None]) -> dict[str, str | None]:
    """The parts of the URL for a prompt, which is chosen by the id of its run."""
    pair, _, seed = (chosen["prompt"] or "").partition("-")
    return {"pair": pair, "seed": seed}


SELECTS = Selects("evaluation", ("prompt",), parts_of=_run)


def layout() -> Component:
    """The prompt's select and the player, hidden until a point is chosen."""
    return html.Div([SELECTS.layout({"prompt": NO_PROMPT}), ab_player("evaluation-player")])


def register(app: dash.Dash, study: Study, heard: Heard) -> None:
    """Play the clips of the point and prompt in the URL."""

    def prompts(query: Query) -> dict[str, Choice]:
        asked = heard(study, query)
        if asked is None:
            return {"prompt": NO_PROMPT}
        _, runs = _runs(study, asked)
        offered = [
            {"value": row.id, "label": f"pair {row.pair}, seed {row.seed}: {row.corrupt_prompt}"}
            for row in runs.head(MOST_PAIRS).itertuples()
        ]
        return {"prompt": Choice("prompt", offered, str(chosen_run(runs, query)["id"]))}

    SELECTS.register(app, prompts)

    @app.callback(Output("evaluation-player", "data-sides"), Input("url", "search"))
    def show_clips(search: str | None) -> str:
        query = read_query(search)
        asked = heard(study, query)
        if asked is None:
            return "{}"
        result, runs = _runs(study, asked)
        _, arm, concept, judge = asked
        return steered_sides(study, result, chosen_run(runs, query), arm, concept, judge)


def _runs(study: Study, asked: tuple[str, str, str, str]) -> tuple[xr.Dataset, pd.DataFrame]:
    """The trial, and the runs of its arm."""
    trial, arm, concept, judge = asked
    result = load_result(study, f"steering-{trial}")
    return result, runs_of(result, arm, concept, judge)
