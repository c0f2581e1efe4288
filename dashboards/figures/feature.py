"""One feature of a sparse autoencoder: its activations, its mean by denoising step, and its concept AUROCs."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PaperFigure
from matplotlib.ticker import MaxNLocator

from dashboards.drawing import palette
from dashboards.drawing.measure import fitting_names
from dashboards.drawing.paper import Width, new_figure
from dashboards.drawing.screen import AXIS, common_layout, plain
from dashboards.figures.base import Figure
from dashboards.figures.specs import Options, SaeFigureSpec, best_row, check_choice
from dashboards.numbers import compared_p, fixed, span
from dashboards.results import load_result
from dashboards.tables.features import features_frame
from workbench.studies.study import Study

UPPER, GAP = 170, 75  # pixels of the upper panels on screen, and between them and the lower one
MAX_ON_SCREEN = 40  # concept values shown; hundreds would be unreadable
MAX_ON_PAPER = 30
LONGEST_ON_SCREEN = 24  # characters of a value's name, for which all panels make room
LONGEST_LABEL = 90.0  # points
SCREEN_COLOUR = palette.SEQUENTIAL[5]
PAPER_COLOUR = palette.SEQUENTIAL[6]


class FeatureSpec(SaeFigureSpec):
    """One feature of an autoencoder."""

    feature: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and feature."""
        return (self.name, str(self.feature))

    @classmethod
    def example(cls, study: Study, options: Options) -> dict[str, Any]:
        """The feature that distinguishes a concept's value best."""
        features = features_frame(load_result(study, f"sae-{options['name']}"))
        return {"feature": int(best_row(features, "best_auroc", {})["feature"])}


def make_table(study: Study, spec: FeatureSpec) -> pd.DataFrame:
    """The numbers of one feature's figure, in long form: feature, panel, label, x, value, value_lo, value_hi.

    Panels: "histogram" (x: left edge of the activation bin, value: count), "step_profile" (x: step, value: mean
    activation), "auroc" (label: concept value, value: AUROC of the clip-mean activation, with its interval if it has
    one).
    """
    result = load_result(study, spec.result_name)
    check_choice("feature", spec.feature, result["feature"].values.tolist())
    one = result.sel(feature=spec.feature)
    values = [str(value) for value in result["value"].values]
    panels = [
        pd.DataFrame({"panel": "histogram", "x": one["hist_edge"].values, "value": one["hist_count"].values}),
        pd.DataFrame(
            {"panel": "step_profile", "x": result["step"].values, "value": one["step_profile"].values}
        ),
        pd.DataFrame(
            {
                "panel": "auroc",
                "label": values,
                **{f"value{end}": one[f"auroc{end}"].values for end in ("", "_lo", "_hi")},
            }
        ),
    ]
    table = pd.concat(panels, ignore_index=True).assign(feature=spec.feature)
    table["label"] = table["label"].fillna("")
    numbers = ["x", "value", "value_lo", "value_hi"]
    return table[["feature", "panel", "label", *numbers]].astype(dict.fromkeys(numbers, float))


def extreme_values(panel: pd.DataFrame, most: int) -> pd.DataFrame:
    """The `most` rows of a feature's "auroc" panel that are furthest from chance, in order of AUROC."""
    distance = (panel["value"] - 0.5).abs().fillna(-1.0)
    furthest = panel.loc[distance.sort_values(ascending=False, kind="stable").index[:most]]
    return furthest.sort_values("value", na_position="first", kind="stable")


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """Histogram, per-step profile and concept scores of one feature."""
    panels = {str(name): panel for name, panel in table.groupby("panel")}
    scores = extreme_values(panels.get("auroc", table.iloc[:0]), MAX_ON_SCREEN)
    left_out = len(panels.get("auroc", table.iloc[:0])) - len(scores)
    title = (
        f"AUROC, {len(scores)} of {len(panels['auroc'])} furthest from chance"
        if left_out
        else "AUROC by concept value"
    )
    lower = max(60, 17 * len(scores))  # pixels
    whole = UPPER + GAP + lower
    above, below = [1 - UPPER / whole, 1.0], [0.0, lower / whole]
    left, right, beside = [0.0, 0.4], [0.6, 1.0], [0.4, 1.0]  # beside the names of concept values
    axes = {
        **_axes("", left, above, *_histogram_axes()),
        **_axes("2", right, above, *_profile_axes()),
        **_axes("3", beside, below, *_score_axes(scores)),
    }
    titles = [
        _title("positive activations", left, above),
        _title("mean activation by step", right, above),
        _title(title, beside, below),
    ]
    layout = {**common_layout(whole + 80), "margin": {"l": 8, "r": 8, "t": 32, "b": 8}, "bargap": 0.25}
    return go.Figure(
        [
            _histogram(panels["histogram"]),
            {**_profile(panels["step_profile"]), "xaxis": "x2", "yaxis": "y2"},
            {**_score_bars(scores), "xaxis": "x3", "yaxis": "y3"},
        ],
        {**layout, **axes, "annotations": titles},
    )


def _axes(
    number: str, across: list[float], up: list[float], x: dict[str, Any], y: dict[str, Any]
) -> dict[str, Any]:
    """The axes of a panel that takes these parts of the figure's width and height."""
    fixed_range = {**AXIS, "fixedrange": True}
    return {
        f"xaxis{number}": {**fixed_range, "domain": across, "anchor": f"y{number}", **x},
        f"yaxis{number}": {**fixed_range, "domain": up, "anchor": f"x{number}", **y},
    }


def _title(text: str, across: list[float], up: list[float]) -> dict[str, Any]:
    """A panel's title, above its middle."""
    return {
        "text": text,
        "font": {"size": 12},
        "showarrow": False,
        "x": sum(across) / 2,
        "y": up[1],
        "xref": "paper",
        "yref": "paper",
        "xanchor": "center",
        "yanchor": "bottom",
    }


def _axis_title(text: str) -> dict[str, Any]:
    return {"title": {"text": text, "font": {"size": 11}, "standoff": 4}}


def _histogram_axes() -> tuple[dict[str, Any], dict[str, Any]]:
    return {**_axis_title("activation"), "nticks": 3, "tickangle": 0}, _axis_title("tokens")


def _histogram(panel: pd.DataFrame) -> dict[str, Any]:
    edges = panel["x"].to_numpy()
    widths = np.diff(edges, append=2 * edges[-1] - edges[-2]) if len(edges) > 1 else np.ones(len(edges))
    return {
        "type": "bar",
        "x": edges,
        "y": panel["value"],
        "width": widths,
        "offset": 0,
        "marker": {"color": SCREEN_COLOUR, "line": {"color": "white", "width": 0.5}},
        "hovertemplate": "from %{x:.3g}: %{y} tokens<extra></extra>",
    }


def _profile_axes() -> tuple[dict[str, Any], dict[str, Any]]:
    return _axis_title("denoising step"), {"rangemode": "tozero", "exponentformat": "e", "nticks": 6}


def _profile(panel: pd.DataFrame) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": panel["x"],
        "y": panel["value"],
        "mode": "lines+markers",
        "line": {"color": SCREEN_COLOUR, "width": 2},
        "hovertemplate": "step %{x}: %{y:.4g}<extra></extra>",
    }


def _score_axes(panel: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [plain(label, LONGEST_ON_SCREEN) for label in panel["label"]]
    values = {"tickvals": list(range(len(panel))), "ticktext": names, "tickfont": {"size": 10}}
    return {**_axis_title("0.5 = chance"), "range": [0, 1], "tickvals": [0, 0.5, 1]}, values


def _score_bars(panel: pd.DataFrame) -> dict[str, Any]:
    below, above = _arms(panel)
    return {
        "type": "bar",
        "x": panel["value"] - 0.5,
        "base": 0.5,
        "y": list(range(len(panel))),
        "orientation": "h",
        "marker": {"color": np.where(panel["value"] >= 0.5, SCREEN_COLOUR, palette.SEQUENTIAL[2])},
        "error_x": {
            "array": above,
            "arrayminus": below,
            "symmetric": False,
            "thickness": 1.2,
            "width": 2,
        },
        "customdata": [(plain(row.label), fixed(row.value) + _limits(row)) for row in panel.itertuples()],
        "hovertemplate": "%{customdata[0]}: AUROC %{customdata[1]}<extra></extra>",
    }


def _arms(panel: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Lengths of the error bars to both sides; NaN without an interval."""
    return panel["value"] - panel["value_lo"], panel["value_hi"] - panel["value"]


def _limits(row: Any) -> str:
    return "" if np.isnan(row.value_lo) else f" {span(row.value_lo, row.value_hi)}"


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """Histogram, per-step profile and concept scores of one feature."""
    panels = {str(name): panel for name, panel in table.groupby("panel")}
    scores = extreme_values(panels.get("auroc", table.iloc[:0]), MAX_ON_PAPER)
    left_out = len(panels.get("auroc", scores)) - len(scores)
    rows = len(scores)
    if width == "single":
        figure = new_figure(width, 3.0 + 0.15 * rows)
        places = figure.subplots(3, 1, height_ratios=[1.3, 1.3, 0.5 + 0.15 * rows])
    else:
        figure = new_figure(width, max(1.8, 0.5 + 0.15 * rows))
        places = figure.subplots(1, 3, width_ratios=[1, 0.9, 1.1])
    _paper_histogram(places[0], panels["histogram"])
    _paper_profile(places[1], panels["step_profile"])
    title = f"{rows} of {rows + left_out} values furthest from 0.5" if left_out else "concept values"
    _paper_scores(places[2], scores, title)
    return figure


def _paper_histogram(axes: Axes, panel: pd.DataFrame) -> None:
    edges = panel["x"].to_numpy()
    widths = np.diff(edges, append=2 * edges[-1] - edges[-2]) if len(edges) > 1 else np.ones(len(edges))
    axes.bar(
        edges,
        panel["value"],
        width=widths,
        align="edge",
        color=PAPER_COLOUR,
        edgecolor="white",
        linewidth=0.3,
    )
    axes.set_xlabel("activation", labelpad=1)
    axes.set_ylabel("tokens")
    axes.set_title("positive activations", pad=3)


def _paper_profile(axes: Axes, panel: pd.DataFrame) -> None:
    axes.plot(panel["x"], panel["value"], color=PAPER_COLOUR, marker="o", markersize=2.5)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("denoising step", labelpad=1)
    axes.set_ylabel("mean activation")
    axes.set_title("by denoising step", pad=3)


def _paper_scores(axes: Axes, panel: pd.DataFrame, title: str) -> None:
    rows = np.arange(len(panel))
    known = panel["value_lo"].notna().to_numpy()
    axes.barh(rows, panel["value"] - 0.5, left=0.5, height=0.7, color=PAPER_COLOUR)
    axes.errorbar(
        panel["value"][known],
        rows[known],
        xerr=[arm[known] for arm in _arms(panel)],
        fmt="none",
        ecolor=palette.INK,
        elinewidth=0.8,
        capsize=1.5,
    )
    axes.set_yticks(rows, fitting_names(panel["label"].tolist() or [""], LONGEST_LABEL, 7.0)[: len(rows)])
    axes.axvline(0.5, color=palette.INK, linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUROC (0.5 = chance)", labelpad=1)
    axes.set_title(title, pad=3)
    axes.tick_params(axis="y", length=0, labelsize=7)


def write_caption(name: str, feature: int, features: pd.DataFrame) -> str:
    """Name the feature, describe the panels, and give its best AUROC with its interval and corrected p.

    `features` is the autoencoder's `features_frame`.
    """
    panels = (
        f"Feature {feature} of the sparse autoencoder {name}: its positive activations, its mean activation by "
        "denoising step, and how well its mean over a clip identifies each concept value (AUROC, chance 0.5)."
    )
    row = features.set_index("feature").loc[feature]
    if not row["best_value"]:
        return panels
    known = not np.isnan(row["best_auroc_lo"])
    limits = f" {span(row['best_auroc_lo'], row['best_auroc_hi'])}" if known else ""
    bars = " Bars: 95 % intervals over prompts, where computed." if known else ""
    return (
        f"{panels}{bars} Highest for {row['best_value']}: {fixed(row['best_auroc'])}{limits}, "
        f"p {compared_p(row['best_p'])}, corrected for {len(features)} features and all values; with shuffled labels, "
        f"the best feature exceeds {fixed(row['shuffled_auroc'])} in 5 % of shuffles."
    )


FIGURE = Figure(
    name="feature",
    spec=FeatureSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda study, spec, _table: write_caption(
        spec.name, spec.feature, features_frame(load_result(study, spec.result_name))
    ),
)
