"""How far a steering vector can be trusted: would other pairs, or another step, have given the same direction?"""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PaperFigure
from plotly.subplots import make_subplots

from analyses.steering.reliability import cosine_in_words, cosine_with_truth
from analyses.steering.vector_content import VectorContent
from cache.errors import UserError
from cache.wording import counted
from dashboards.drawing import palette
from dashboards.drawing.paper import Width, draw_cells, new_figure
from dashboards.drawing.screen import color_axis, style
from dashboards.figures.base import Figure
from dashboards.figures.specs import FigureSpec, Options, check_choice
from dashboards.names import shortened
from dashboards.packs import load_pack, pack_names, pack_path
from workbench.provenance import file_hash
from workbench.studies.study import Study

LEARNING, HALVES, STEPS = "learning", "split_half", "steps"
TITLES = {LEARNING: "by number of {units}", HALVES: "of two halves of the {units}", STEPS: "of two steps"}
AXES = {LEARNING: "{units} in each set", HALVES: "denoising step", STEPS: "denoising step"}
UNKNOWN = "unknown"


class VectorReliabilitySpec(FigureSpec):
    """The reliability of one of the study's vectors, by default the first, at one of its sites and in one pass."""

    pack: str
    site: str = ""
    pass_name: str = ""

    @property
    def result_name(self) -> str:
        """A name for the vector; it is not a result."""
        return f"pack-{self.pack}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The vector and, if given, site and pass."""
        return tuple(filter(None, (self.pack, self.site, self.pass_name)))

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """The options with `pack` filled in."""
        if "pack" in options:
            return dict(options)
        names = pack_names(study)
        if not names:
            raise UserError(f"{study.path} has no steering vectors: make one with `workbench steer fit`.")
        return {**options, "pack": names[0]}

    def origin(self, study: Study) -> dict[str, Any]:
        """What the vector was made from."""
        vector, file = load_pack(study, self.pack), pack_path(study, self.pack)
        return {
            "kind": "vector",
            "file": file.name,
            "sha256": file_hash(file),
            "method": vector.method,
            "concept": vector.concept,
            "positive": vector.positive,
            "negative": vector.negative,
            "model": dict(vector.model),
            "settings": vector.settings.model_dump(mode="json"),
            "provenance": dict(vector.provenance),
        }


def make_table(study: Study, spec: VectorReliabilitySpec) -> pd.DataFrame:
    """The rows of `reliability_frame` for the spec's vector, site and pass."""
    vector = load_pack(study, spec.pack)
    sites, passes = list(vector.directions), vector.reliability["pass"].values.tolist()
    for what, value, known in (("site", spec.site, sites), ("pass", spec.pass_name, passes)):
        if value:
            check_choice(what, value, known)
    return reliability_frame(vector, spec.pack, spec.site or sites[0], spec.pass_name or passes[0])


def reliability_frame(vector: VectorContent, name: str, site: str, pass_name: str) -> pd.DataFrame:
    """Cosines between directions of one site and pass: pack, site, pass, units, quantity, step, at, value, low, high.

    Quantities: `learning` (of two disjoint sets of `at` pairs each), `split_half` (of two halves of the pairs, with the
    central 95 % over halvings), `steps` (of the directions of `step` and of the step `at`).
    """
    found = vector.reliability.sel({"site": site, "pass": pass_name})
    steps = [int(step) for step in found["step"].values]
    rows: list[dict[str, Any]] = []
    for step in steps:
        one = found.sel(step=step)
        for pairs in found["pairs"].values:
            rows.append(_row(LEARNING, step, int(pairs), float(one["learning"].sel(pairs=pairs))))
        limits = float(one["split_half_lo"]), float(one["split_half_hi"])
        rows.append(_row(HALVES, step, step, float(one["split_half"]), *limits))
        rows += [_row(STEPS, step, other, float(one["steps"].sel(step_b=other))) for other in steps]
    table = pd.DataFrame(rows)
    units = "clips" if vector.examples and not vector.n_pairs else "pairs"
    labels = (("pack", name), ("site", site), ("pass", pass_name), ("units", units))
    for place, (label, value) in enumerate(labels):
        table.insert(place, label, value)
    return table.sort_values(
        "quantity", key=lambda names: names.map(list(TITLES).index), kind="stable"
    ).reset_index(drop=True)


def _units(table: pd.DataFrame) -> str:
    """What the vector was computed from: pairs or, for a descriptor, clips."""
    return str(table["units"].iloc[0])


def _row(
    quantity: str, step: int, at: int, value: float, low: float = np.nan, high: float = np.nan
) -> dict[str, Any]:
    return {"quantity": quantity, "step": step, "at": at, "value": value, "low": low, "high": high}


def _known(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows of a quantity that have a value."""
    return table[(table["quantity"] == quantity) & table["value"].notna()]


def _curve(table: pd.DataFrame) -> pd.DataFrame:
    """The learning curve: mean, min and max over the steps by number of pairs."""
    return _known(table, LEARNING).groupby("at")["value"].agg(["mean", "min", "max"])


def _grid(table: pd.DataFrame) -> tuple[list[int], np.ndarray]:
    """The steps and their cosines (step, step)."""
    of_steps = table[table["quantity"] == STEPS]
    grid = of_steps.pivot(index="step", columns="at", values="value")
    return [int(step) for step in grid.index], grid.to_numpy(float)


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """Three panels: cosine by number of pairs, of halves at each step, and between steps."""
    figure = make_subplots(
        rows=1,
        cols=3,
        subplot_titles=[f"cosine {title.format(units=_units(table))}" for title in TITLES.values()],
        horizontal_spacing=0.08,
    )
    curve, halves = _curve(table), _known(table, HALVES)
    colour = palette.SEQUENTIAL[5]
    figure.add_scatter(
        x=[*curve.index, *curve.index[::-1]],
        y=[*curve["max"], *curve["min"][::-1]],
        fill="toself",
        fillcolor=colour,
        opacity=0.18,
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=curve.index,
        y=curve["mean"],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        hovertemplate=f"%{{x}} {AXES[LEARNING].format(units=_units(table))}: %{{y:.3f}}<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=halves["step"],
        y=halves["value"],
        mode="markers",
        marker={"color": colour, "size": 8, "opacity": 1},
        error_y={
            "array": halves["high"] - halves["value"],
            "arrayminus": halves["value"] - halves["low"],
            "color": colour,
            "thickness": 1.4,
        },
        hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
        row=1,
        col=2,
    )
    steps, grid = _grid(table)
    figure.add_heatmap(
        z=grid,
        x=steps,
        y=steps,
        coloraxis="coloraxis",
        hovertemplate="steps %{x} and %{y}: %{z:.3f}<extra></extra>",
        row=1,
        col=3,
    )
    for column, (quantity, title) in enumerate(AXES.items(), start=1):
        place = {"row": 1, "col": column}
        figure.update_xaxes(
            title={"text": title.format(units=_units(table)), "font": {"size": 11}, "standoff": 4},
            fixedrange=True,
            **place,
        )
        figure.update_yaxes(fixedrange=True, **place)
        if quantity != STEPS:
            figure.update_yaxes(range=_range(table), **place)
        if _known(table, quantity).empty:
            axis = "" if column == 1 else str(column)
            figure.add_annotation(
                text=UNKNOWN, showarrow=False, x=0.5, y=0.5, xref=f"x{axis} domain", yref=f"y{axis} domain"
            )
    figure.update_xaxes(showgrid=False, row=1, col=3)
    figure.update_yaxes(
        autorange="reversed", showgrid=False, title={"text": AXES[STEPS], "font": {"size": 11}}, row=1, col=3
    )
    figure.update_annotations(selector={"yanchor": "bottom"}, font={"size": 12})
    return style(figure, height=270, coloraxis=color_axis("cosine")).update_layout(margin={"t": 32})


def _range(table: pd.DataFrame) -> list[float]:
    """From 0 to 1, or further down if a cosine is."""
    values = table.loc[table["quantity"] != STEPS, ["value", "low"]].to_numpy(float)
    lowest = float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
    return [min(0.0, lowest) - 0.02, 1.03]


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """Three panels: cosine by number of pairs, of halves at each step, and between steps."""
    shape = (3, 1) if width == "single" else (1, 3)
    figure = new_figure(width, 1.75 * shape[0] + 0.2)
    panels = dict(zip(TITLES, figure.subplots(*shape).ravel(), strict=True))
    first = table.iloc[0]
    figure.suptitle(shortened(f"{first['pack']}, {first['site']}, {first['pass']}", 60), fontsize=8)
    for quantity, axes in panels.items():
        axes.set_title(f"cosine {TITLES[quantity].format(units=_units(table))}", pad=3)
        axes.set_xlabel(AXES[quantity].format(units=_units(table)), labelpad=1)
        if quantity != STEPS:
            axes.set_ylim(*_range(table))
        if _known(table, quantity).empty:
            axes.text(
                0.5, 0.5, UNKNOWN, transform=axes.transAxes, ha="center", va="center", color=palette.MUTED
            )
    _draw_curves(panels, table)
    _draw_steps(figure, panels[STEPS], table)
    return figure


def _draw_curves(panels: dict[str, Axes], table: pd.DataFrame) -> None:
    colour, curve, halves = palette.SEQUENTIAL[6], _curve(table), _known(table, HALVES)
    panels[LEARNING].fill_between(
        curve.index, curve["min"], curve["max"], color=colour, alpha=0.18, linewidth=0
    )
    panels[LEARNING].plot(curve.index, curve["mean"], color=colour, marker="o", markersize=3)
    panels[HALVES].errorbar(
        halves["step"],
        halves["value"],
        yerr=(halves["value"] - halves["low"], halves["high"] - halves["value"]),
        fmt="o",
        color=colour,
        markersize=3.5,
        elinewidth=0.9,
        capsize=1.5,
    )
    for axes in panels.values():
        axes.locator_params(axis="x", integer=True, nbins=6)


def _draw_steps(figure: PaperFigure, axes: Axes, table: pd.DataFrame) -> None:
    steps, grid = _grid(table)
    edges = [float(step) for step in range(len(steps))]
    mesh = draw_cells(axes, grid, edges, edges, 4.0)
    axes.set_ylim(len(steps), 0)
    one_in = -(-len(steps) // 6)
    places, names = [edge + 0.5 for edge in edges[::one_in]], [str(step) for step in steps[::one_in]]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.set_ylabel(AXES[STEPS])
    bar = figure.colorbar(mesh, ax=axes)
    bar.set_ticks([0, 0.5, 1])
    bar.outline.set_visible(False)


def write_caption(vector: VectorContent, table: pd.DataFrame) -> str:
    """Say what the direction is, what was compared, and how close to the truth all pairs together come."""
    first = table.iloc[0]
    ends = f"{vector.concept}, from {vector.negative} to {vector.positive}"
    known = vector.n_pairs or len(vector.examples)
    pairs = counted(known, _units(table)[:-1]) if known else "unknown pairs"
    start = (
        f"Reliability of the direction {first['pack']} ({vector.method}; {ends}) at {first['site']} in the "
        f"{first['pass']} pass, computed from {pairs}."
    )
    parts = []
    if not _known(table, LEARNING).empty:
        parts.append(
            f"By number of {_units(table)}: cosine of the directions of two disjoint sets of so many each, mean over "
            "the steps, shaded from the lowest to the highest step."
        )
    if not _known(table, HALVES).empty:
        truth = cosine_with_truth(
            vector.reliability["split_half"].sel({"site": first["site"], "pass": first["pass"]})
        )
        estimated = cosine_in_words(float(truth.mean())) if bool(truth.notnull().any()) else "undefined"
        parts.append(
            f"Of two halves: cosine of the directions of two halves of the {_units(table)}{_over(table)}; "
            f"the direction of all {_units(table)} is closer to that of endlessly many (estimated cosine "
            f"{estimated}, mean over the steps)."
        )
    parts.append("Of two steps: cosine of the directions of two denoising steps.")
    if len(parts) < 3:
        parts.append(f"How much it depends on the {_units(table)} is unknown.")
    return " ".join([start, *parts])


def _over(table: pd.DataFrame) -> str:
    """Say what the points and bars are, unless there is a single halving."""
    return "" if _known(table, HALVES)["low"].isna().all() else ", mean and central 95 % over halvings"


def print_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a paper: halves at each step; the CSV has the other cosines."""
    halves = table[table["quantity"] == HALVES]
    columns = {"step": "step", "value": "split-half cosine", "low": "2.5 %", "high": "97.5 %"}
    return halves[list(columns)].rename(columns=columns)


FIGURE = Figure(
    name="vector-reliability",
    spec=VectorReliabilitySpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, table: write_caption(load_pack(study, spec.pack), table),
    latex=print_table,
)
