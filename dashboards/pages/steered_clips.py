"""The clips of one prompt in one way of steering: unsteered, at each strength, and of the real prompt."""

from typing import Any

import pandas as pd
import xarray as xr

from analyses.steering.effects import UNSTEERED
from dashboards.components.ab import Side, ab_sides
from dashboards.differences import marked
from dashboards.numbers import fixed
from dashboards.pages.page import Query
from dashboards.tables.steering import POSITIVE, clips_frame, steered_frame
from workbench.studies.study import Study


def runs_of(result: xr.Dataset, arm: str, concept: str, scorer: str) -> pd.DataFrame:
    """The rows of `steered_frame` for a table on a page, with the column `id`."""
    runs = steered_frame(result, arm, concept, scorer)
    runs["noise_seed"] = runs["noise_seed"].astype(str)  # JavaScript integers are exact up to 2⁵³
    runs["id"] = [run_id(pair, seed) for pair, seed in zip(runs["pair"], runs["seed"], strict=True)]
    return runs


def run_id(pair: object, seed: object) -> str:
    """The id of a row."""
    return f"{pair}-{seed}"


def chosen_run(runs: pd.DataFrame, query: Query) -> pd.Series:
    """The row of the pair and seed in the URL; the first if there is none."""
    chosen = runs[runs["id"] == run_id(query.get("pair"), query.get("seed"))]
    return (runs if chosen.empty else chosen).iloc[0]


def steered_sides(
    study: Study, result: xr.Dataset, run: pd.Series, arm: str, concept: str, scorer: str
) -> str:
    """What an A/B player plays of a run (a row of `runs_of`); the clip of the arm is audible first."""
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
