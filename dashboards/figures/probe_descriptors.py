"""Maps of ridge probes: one map per descriptor of the audio, blocks down and denoising steps across."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure as PaperFigure

from analyses.statistics import MIN_P
from cache.errors import UserError
from dashboards.drawing.paper import Width
from dashboards.figures import probe_maps
from dashboards.figures.base import Figure
from dashboards.figures.probe_maps import Said
from dashboards.figures.specs import Options, ProbesFigureSpec, check_choice
from dashboards.numbers import compared_p, fixed, p_value
from dashboards.results import load_result
from dashboards.tables.probes import descriptors_frame, has_descriptors
from dashboards.wording import interval
from workbench.scorers.descriptors import unit_of
from workbench.studies.study import Study

QUANTITY = "R²"


class ProbeDescriptorsSpec(ProbesFigureSpec):
    """Maps of the ridge probes of one part of the network (by default the first that was probed)."""

    part: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The part."""
        return (self.part,)

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """The options with `part` filled in."""
        return dict(options) if "part" in options else {**options, "part": _frame(study)["part"].iloc[0]}


def _frame(study: Study) -> pd.DataFrame:
    result = load_result(study, "probes")
    if not has_descriptors(result):
        raise UserError(
            f"The probes of {study.path} are of no descriptor: probe one with `workbench probe {study.path} "
            "--descriptor brightness`."
        )
    return descriptors_frame(result)


def make_table(study: Study, spec: ProbeDescriptorsSpec) -> pd.DataFrame:
    """The rows of `descriptors_frame` for one part."""
    frame = _frame(study)
    check_choice("part", spec.part, list(frame["part"].unique()))
    return frame[frame["part"] == spec.part].reset_index(drop=True)


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """One heatmap of R² per descriptor; cells not significantly above shuffled values (q >= 0.05) are hatched."""
    return probe_maps.draw_screen(table.rename(columns={"r2": QUANTITY}), QUANTITY, said=OF_DESCRIPTORS)


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """One map of R² per descriptor, hatched where q >= 0.05."""
    return probe_maps.draw_paper(table.rename(columns={"r2": QUANTITY}), QUANTITY, width, OF_DESCRIPTORS)


def _unit(row: Mapping[Hashable, Any]) -> str:
    return unit_of(str(row["concept"]))


def _hover(row: Mapping[Hashable, Any]) -> str:
    r2 = {**row, "r2": row[QUANTITY]}
    return (
        f"R² {interval(r2, 'r2', 3)}<br>shuffled values {fixed(row['control'], 3)}<br>"
        f"q {compared_p(row['q_value'])}, σ = {fixed(row['sigma'], 3)}<br>"
        f"n = {fixed(row['n'], 0)} clips from {fixed(row['groups'], 0)} prompts"
    )


OF_DESCRIPTORS = Said(_unit, _hover)


def write_caption(table: pd.DataFrame) -> str:
    """Describe the probes, the number of clips, and the intervals and tests."""
    sizes = "; ".join(
        f"{row.concept}: {fixed(row.n, 0)} clips of {fixed(row.groups, 0)} prompts"
        for row in table.drop_duplicates("concept").itertuples()
    )
    return (
        f"Ridge probes for descriptors of the audio on {table['part'].iloc[0]} by block and denoising step: "
        "cross-validated R², 1 − Σ (y − ŷ)² / Σ (y − ȳ)² over held-out prompts, with ȳ the mean of the training "
        "clips; below 0 the probe is worse than that mean. Intervals are 95 % BCa bootstrap intervals over the tested "
        "prompts, with the trained probes held fixed. Hatched: not significantly above values shuffled between prompts "
        "(q ≥ 0.05 after Benjamini–Hochberg over all ridge probes; p is one-sided, from a t distribution fitted to R² "
        f"of the descriptor's probes of shuffled values, and not given below {MIN_P:g}). {sizes}."
    )


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: one row per probe; the CSV has the other numbers."""
    r2 = [interval(row, "r2") for row in table.to_dict("records")]
    shown = table.assign(**{"R² [95 %]": r2, "q": table["q_value"].map(p_value)})
    return shown.rename(columns={"concept": "descriptor"})[
        ["descriptor", "site", "step", "R² [95 %]", "control", "q", "n"]
    ]


FIGURE = Figure(
    name="probe-descriptors",
    spec=ProbeDescriptorsSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda _study, _spec, table: write_caption(table),
    latex=print_table,
)
