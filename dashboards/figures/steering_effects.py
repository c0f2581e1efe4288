"""What steering does to every concept: ways of steering down, concepts across."""

from collections.abc import Hashable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.figure import Figure as PaperFigure

from analyses.statistics import ALPHA, too_few_pairs
from dashboards.drawing import paper_maps, screen_maps
from dashboards.drawing.paper import POINTS, Width, empty_figure
from dashboards.figures.base import Figure
from dashboards.figures.dose_response import REAL, hover
from dashboards.figures.ladder import LadderSpec
from dashboards.figures.specs import check_choice
from dashboards.numbers import fixed
from dashboards.tables.patching import UNCLEAR, UNTESTED, choose, scorers
from dashboards.tables.steering import (
    ARM_VALUES,
    POSITIVE,
    arm_labels,
    chosen_frame,
    doses_frame,
    is_interpretable,
    strengths,
)
from dashboards.wording import DAGGERS, from_to, steering_notes, steering_sample
from workbench.studies.study import Study

PANEL = "change relative to the real prompt's"
COLOURS = "|change|"


class SteeringEffectsSpec(LadderSpec):
    """What each way of steering does to every concept, at a `strength` or at its best one."""


def make_table(study: Study, spec: SteeringEffectsSpec) -> pd.DataFrame:
    """The rows of `leaks_frame` for the spec's scorer and strength."""
    result = spec.load(study)
    if spec.strength is not None:
        check_choice("strength", spec.strength, strengths(result))
    return leaks_frame(result, spec.scorer, spec.strength)


def leaks_frame(result: xr.Dataset, scorer: str = "", strength: float | None = None) -> pd.DataFrame:
    """One row for each concept of the real prompt, and of each way of steering at the dose of `chosen_frame`.

    Columns: scorer, concept, own (whether it is the steered one), way, arm, strength, score, effect with interval,
    p, p_adjusted, null band, relative (the effect as a fraction of the real prompt's on the steered concept; NaN where
    that is not clearly above 0), status.
    """
    doses = doses_frame(result, scorer)
    arms = [POSITIVE, *chosen_frame(result, scorer, strength)["arm"]]
    frame = doses[doses["arm"].isin(arms)].reset_index(drop=True)
    frame["way"] = frame["way"].where(frame["arm"] != POSITIVE, REAL)
    one = result.sel(scorer=scorer or str(result["scorer"].values[0]))
    is_defined = is_interpretable(result, scorer)
    frame["relative"] = frame["effect"] / (float(one["denominator"]) if is_defined else float("nan"))
    if not is_defined:
        frame["status"] = frame["status"].where(frame["status"] == "no score", "undefined")
    frame.insert(0, "scorer", choose("scorer", scorer, scorers(result)))
    first = ["scorer", "concept", "own", "way", "arm", "strength", "score"]
    return frame[[*first, *ARM_VALUES, "relative", "status"]]


def _map(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a map: concepts across, in one panel."""
    arms = table["arm"].where(table["arm"] != POSITIVE, REAL)
    names = arms.unique().tolist()
    labels = dict(zip(names, arm_labels(names), strict=True))
    return table.assign(
        panel=PANEL,
        across=table["concept"],
        label=arms.map(labels),
        group="cell",
        block=-1,
        direction="",
        column="",
        largest_of=1,
        impact=table["relative"],
        level=table["relative"].abs(),
        status=table["status"].where(
            table["relative"].notna() | (table["status"] == "undefined"), "no score"
        ),
        hover=[_hover(row) for row in table.to_dict("records")],
    )


def _hover(row: dict[Hashable, Any]) -> str:
    return f"{fixed(row['relative'], 3)} of the real prompt's change<br>{hover(row)}"


def draw_screen(table: pd.DataFrame, selected: tuple[str, str] | None = None) -> go.Figure:
    """A map of changes; the `selected` cell (concept, arm) is outlined."""
    return screen_maps.draw_map(_map(table), selected, COLOURS)


def frame_for_clicks(table: pd.DataFrame) -> pd.DataFrame:
    """The frame in which `cell_at` finds the cell that was clicked."""
    return _map(table)


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """A map of changes, hatched where not significant or inside the null band."""
    parts = paper_maps.strips(_map(table), POINTS[width])
    figure = empty_figure(width, paper_maps.map_height(parts, [], POINTS[width]))
    paper_maps.draw_map(figure, parts, [], title=COLOURS)
    return figure


def write_caption(result: xr.Dataset, table: pd.DataFrame, spec: SteeringEffectsSpec) -> str:
    """Describe the cells, the strengths and the tests."""
    steered = result.attrs["concept"]
    chosen = (
        "its strength with the largest change, chosen on the same prompts"
        if spec.strength is None
        else f"strength {spec.strength:g} (or, if it was not tried at it, its strength with the largest change)"
    )
    sentences = [
        f"What steering {steered} {from_to(result)} does to every concept: "
        f"the change in its score, divided by the change that the real prompt makes in the score for {steered}; other "
        f"concepts are scored for the value that the prompt names. Scorer {table['scorer'].iloc[0]}, "
        f"{steering_sample(result, spec.scorer)}. Each way of steering at {chosen}.",
        _tests(result, table),
        *steering_notes(result, spec.scorer),
    ]
    return " ".join(filter(None, sentences))


def _tests(result: xr.Dataset, table: pd.DataFrame) -> str:
    if (table["status"] == UNTESTED).any():
        return f"Dotted (double dagger in the table): {too_few_pairs(int(result.sizes['pair']))}"
    if table["status"].isin(UNCLEAR).any():
        return (
            f"Hatched (dagger in the table): not significant (p > {ALPHA:g} by sign flips of pairs, after "
            "Benjamini–Hochberg over the doses of the concept), or inside the null band. The real prompt is not tested."
        )
    return ""


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The map as a table with the same rows and columns."""
    texts = [
        row["status"] if pd.isna(row["relative"]) else fixed(row["relative"]) + DAGGERS.get(row["status"], "")
        for row in table.to_dict("records")
    ]
    named = table.assign(text=texts, label=table["arm"].where(table["arm"] != POSITIVE, REAL))
    wide = named.pivot(index="label", columns="concept", values="text")
    wide = wide.loc[list(dict.fromkeys(named["label"])), list(dict.fromkeys(named["concept"]))]
    return wide.rename_axis(index="row", columns=None).reset_index().rename(columns={"row": ""})


FIGURE = Figure(
    name="steering-effects",
    spec=SteeringEffectsSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, table: write_caption(spec.load(study), table, spec),
    latex=print_table,
)
