"""The effect of one patch in each pair, beside the difference between clean and corrupt."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure as PaperFigure

from analyses.statistics import too_few_pairs
from cache.errors import UserError
from dashboards.drawing import palette
from dashboards.drawing.paper import Width, new_figure
from dashboards.drawing.screen import plain, style
from dashboards.figures.base import Figure
from dashboards.figures.specs import Options, PatchingFigureSpec, best_row, check_choice
from dashboards.names import shortened
from dashboards.numbers import compared_p, p_value
from dashboards.results import load_result
from dashboards.tables.patching import UNTESTED, cells_frame, choose, pairs_frame, scorers, tested_cells
from dashboards.wording import band, confidence, interval, sample
from workbench.studies.study import Study


class PatchingPairsSpec(PatchingFigureSpec):
    """The effect of one arm of a patching result in each pair of a concept."""

    width: Width = "single"
    concept: str
    arm: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The cell."""
        return tuple(filter(None, (self.name, self.concept, self.arm, self.scorer)))

    @classmethod
    def example(cls, study: Study, options: Options) -> dict[str, Any]:
        """The cell with the largest impact."""
        cells = cells_frame(load_result(study, f"patching-{options['name']}"))
        return best_row(cells[cells["group"] == "cell"], "impact", options)[["concept", "arm"]].to_dict()


def make_table(study: Study, spec: PatchingPairsSpec) -> pd.DataFrame:
    """The rows of `changes_frame` for the spec's concept and arm."""
    result = load_result(study, spec.result_name)
    check_choice("concept", spec.concept, result["concept"].values.tolist())
    check_choice("arm", spec.arm, result["arm"].values[result["role"].values != "run"].tolist())
    check_choice("scorer", spec.scorer, ["", *scorers(result)])
    table = changes_frame(result, spec.concept, spec.arm, spec.scorer)
    if table.empty:
        raise UserError(
            f"No pair of {spec.concept} was run in this patching result, so there is nothing to show."
        )
    return table


def changes_frame(result: xr.Dataset, concept: str, arm: str, scorer: str = "") -> pd.DataFrame:
    """The effect of one arm, one row for each pair, seed and quantity: these, noise seed, prompts, value.

    Quantities: the arm's effect relative to its base ("patched − corrupt" or "clean − patched"), and the full
    difference "clean − corrupt".
    """
    pairs = pairs_frame(result, concept, arm, scorer)
    necessity = str(result["direction"].sel(arm=arm).item()) == "necessity"
    named = {"change": "clean − patched" if necessity else "patched − corrupt", "whole": "clean − corrupt"}
    cell = {
        "concept": concept,
        "arm": arm,
        "scorer": choose("scorer", scorer, scorers(result)),
    }
    parts = [
        pairs[["pair", "seed", "noise_seed", "clean_prompt", "corrupt_prompt"]].assign(
            **cell, quantity=name, value=pairs[column]
        )
        for column, name in named.items()
    ]
    return pd.concat(parts, ignore_index=True)[
        [*cell, "quantity", "pair", "seed", "noise_seed", "clean_prompt", "corrupt_prompt", "value"]
    ]


def draw_screen(table: pd.DataFrame, selected: tuple[int, int] | None = None) -> go.Figure:
    """The effect of one arm in each pair beside the full difference: a box, and one dot per run.

    The runs of the `selected` pair and seed are ringed; a dot's customdata starts with (pair, seed).
    """
    figure = go.Figure()
    for index, (quantity, part) in enumerate(table.groupby("quantity", sort=False)):
        scored = part.dropna(subset=["value"])
        chosen = [(row.pair, row.seed) == selected for row in scored.itertuples()]
        dots = {
            "color": palette.SEQUENTIAL[5 if index == 0 else 3],
            "size": 8,
            "opacity": 1,
            "line": {
                "width": [2.5 if one else 0.5 for one in chosen],
                "color": [palette.PLANTED if one else "white" for one in chosen],
            },
        }
        line = {"color": palette.MUTED, "width": 1.2}
        figure.add_box(
            **_box(scored["value"].to_numpy()),
            y=[index],
            name=str(quantity),
            orientation="h",
            hoverinfo="skip",
            line=line,
            fillcolor="rgba(107, 119, 133, 0.12)",
            width=0.5,
        )
        figure.add_scatter(
            x=scored["value"],
            y=index + _spread(len(scored)),
            mode="markers",
            marker=dots,
            customdata=[
                (row.pair, row.seed, plain(row.clean_prompt), plain(row.corrupt_prompt), str(row.noise_seed))
                for row in scored.itertuples()
            ],
            hovertemplate=(
                f"{quantity}: %{{x:.3f}}<br>pair %{{customdata[0]}}, seed %{{customdata[1]}} (noise %{{customdata[4]}})"
                "<br>clean: %{customdata[2]}<br>corrupt: %{customdata[3]}<extra></extra>"
            ),
        )
    names = list(dict.fromkeys(table["quantity"]))
    figure.add_vline(x=0, line={"color": palette.MUTED, "width": 1, "dash": "dot"})
    figure.update_xaxes(title={"text": "difference of scores", "font": {"size": 11}, "standoff": 4})
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5], showgrid=False
    )
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return style(figure, height=190, clickmode="event", hovermode="closest")


def _box(values: np.ndarray) -> dict[str, list[float]]:
    """Quartiles, median and whiskers as matplotlib draws them: Plotly interpolates quartiles in another way."""
    if not values.size:
        return {name: [] for name in ("q1", "median", "q3", "lowerfence", "upperfence")}
    (box,) = boxplot_stats(values)
    ends = {"q1": "q1", "median": "med", "q3": "q3", "lowerfence": "whislo", "upperfence": "whishi"}
    return {name: [float(box[end])] for name, end in ends.items()}


def _spread(count: int) -> np.ndarray:
    """Deterministic offsets that separate the dots of one row."""
    return 0.32 * (((np.arange(count) * 0.618034) % 1.0) - 0.5)


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """The effect of one arm in each pair beside the full difference: a box, and one dot per run."""
    figure = new_figure(width, 1.5)
    axes = figure.subplots()
    quantities = list(dict.fromkeys(table["quantity"]))
    for row, quantity in enumerate(quantities):
        values = table.loc[table["quantity"] == quantity, "value"].dropna().to_numpy()
        ink = {"color": palette.MUTED, "linewidth": 0.8}
        axes.boxplot(
            values,
            positions=[row],
            orientation="horizontal",
            widths=0.5,
            showfliers=False,
            medianprops={**ink, "linewidth": 1.4},
            boxprops=ink,
            whiskerprops=ink,
            capprops=ink,
        )
        offsets = 0.3 * (((np.arange(len(values)) * 0.618034) % 1.0) - 0.5)
        colour = palette.SEQUENTIAL[5 if row == 0 else 3]
        axes.scatter(values, row + offsets, s=11, color=colour, edgecolor="white", linewidth=0.3, zorder=3)
    axes.axvline(0, color=palette.MUTED, linestyle=":", linewidth=0.8)
    axes.set_ylim(len(quantities) - 0.5, -0.5)
    axes.set_yticks(range(len(quantities)), quantities)
    axes.set_xlabel("difference of scores")
    axes.set_title(shortened(f"{table['concept'].iloc[0]}, {table['arm'].iloc[0]}", 48))
    return figure


def write_caption(result: xr.Dataset, table: pd.DataFrame, cell: pd.Series) -> str:
    """Describe the arm and how its impact was tested; `cell` is its row of `cells_frame`."""
    first = table.iloc[0]
    place = f"{result.attrs['row_label']} {cell['row']}, {cell['column']}"
    quantities = " and ".join(dict.fromkeys(table["quantity"]))
    seeds = result.sizes["seed"]
    return (
        f"Effect of patching in each pair of {first['concept']} ({place}): {quantities}, one dot per pair and seed, "
        f"scorer {first['scorer']}; boxes show quartiles and medians. Impact {interval(cell, 'impact')} "
        f"({confidence(result)} BCa bootstrap over pairs), {_tested(result, cell)}. {sample(cell, seeds)}, denominator "
        f"{interval(cell, 'denominator')}, null band {band(cell)}, stability {interval(cell, 'stability')}."
    )


def _tested(result: xr.Dataset, cell: pd.Series) -> str:
    if pd.isna(cell["p"]):
        return "not tested"
    if cell["status"] == UNTESTED:
        return too_few_pairs(int(cell["n_pairs"])).rstrip(".")
    p = f"p {compared_p(cell['p'])}"
    if pd.isna(cell["p_adjusted"]):
        return f"{p}, not corrected"
    cells = tested_cells(result, cell["scorer"])
    return f"{p}, {p_value(cell['p_adjusted'])} after {result.attrs['correction']} over {cells} cells"


def _cell(result: xr.Dataset, spec: PatchingPairsSpec) -> pd.Series:
    cells = cells_frame(result, spec.scorer)
    return cells[(cells["concept"] == spec.concept) & (cells["arm"] == spec.arm)].iloc[0]


def _caption(study: Study, spec: PatchingPairsSpec, table: pd.DataFrame) -> str:
    result = load_result(study, spec.result_name)
    return write_caption(result, table, _cell(result, spec))


FIGURE = Figure(
    name="patching-pairs",
    spec=PatchingPairsSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=_caption,
    latex=lambda table: table.drop(columns="noise_seed"),  # no paper prints it; the CSV has it
)
