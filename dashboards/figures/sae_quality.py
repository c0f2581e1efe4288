"""Quality of a sparse autoencoder at each denoising step, on held-out tokens, with the steps that its gate closes."""

import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.figure import Figure as PaperFigure
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from cache.wording import counted
from dashboards.drawing import palette
from dashboards.drawing.paper import Width, new_figure
from dashboards.drawing.screen import style
from dashboards.figures.base import Figure
from dashboards.figures.specs import SaeFigureSpec
from dashboards.results import load_result
from dashboards.tables.features import STEP_MEASURES
from workbench.studies.study import Study

TITLES = {
    "explained_variance": "explained variance",
    "normalised_error": "normalised error",
    "l0": "L0",
    "dead_fraction": "dead features",
}


class SaeQualitySpec(SaeFigureSpec):
    """The quality of an autoencoder at each denoising step."""


def make_table(study: Study, spec: SaeQualitySpec) -> pd.DataFrame:
    """The rows of `quality_frame` for the autoencoder."""
    return quality_frame(load_result(study, spec.result_name))


def quality_frame(result: xr.Dataset) -> pd.DataFrame:
    """The metrics at each step on held-out tokens: step, sigma, metric, value, gated (whether the step is closed)."""
    frames = [
        pd.DataFrame(
            {
                "step": result["step"].values.astype(int),
                "sigma": result["sigma"].values.astype(float),
                "metric": name,
                "value": result[f"step_{name}"].values.astype(float),
                "gated": result["gated"].values.astype(bool),
            }
        )
        for name in STEP_MEASURES
    ]
    return pd.concat(frames, ignore_index=True)


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """A curve over the steps for each metric; steps that are closed have open marks."""
    figure = make_subplots(
        rows=1,
        cols=len(STEP_MEASURES),
        subplot_titles=[TITLES[name] for name in STEP_MEASURES],
        horizontal_spacing=0.06,
    )
    for column, name in enumerate(STEP_MEASURES, start=1):
        of_metric = table[table["metric"] == name]
        figure.add_scatter(
            x=of_metric["step"],
            y=of_metric["value"],
            mode="lines+markers",
            line={"color": palette.SEQUENTIAL[5], "width": 2},
            marker={
                "size": 8,
                "symbol": ["circle-open" if gated else "circle" for gated in of_metric["gated"]],
            },
            customdata=[
                (sigma, ", closed" if gated else "")
                for sigma, gated in zip(of_metric["sigma"], of_metric["gated"], strict=True)
            ],
            hovertemplate="step %{x} (σ %{customdata[0]:.3g})%{customdata[1]}: %{y:.4g}<extra></extra>",
            row=1,
            col=column,
        )
        figure.update_xaxes(
            title={"text": "denoising step", "font": {"size": 11}, "standoff": 4}, row=1, col=column
        )
    figure.update_annotations(selector={"yanchor": "bottom"}, font={"size": 12})
    return style(figure, height=240).update_layout(margin={"t": 32})


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """A curve over the steps for each metric; steps that are closed have open marks."""
    shape = (2, 2) if width == "single" else (1, 4)
    figure = new_figure(width, 1.5 * shape[0])
    for axes, name in zip(figure.subplots(*shape).ravel(), STEP_MEASURES, strict=True):
        of_metric = table[table["metric"] == name]
        colour = palette.SEQUENTIAL[6]
        axes.plot(of_metric["step"], of_metric["value"], color=colour, zorder=1)
        for gated, face in ((False, colour), (True, "white")):
            some = of_metric[of_metric["gated"] == gated]
            axes.scatter(some["step"], some["value"], s=14, facecolor=face, edgecolor=colour, zorder=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(TITLES[name], pad=3)
        axes.set_xlabel("denoising step", labelpad=1)
    return figure


def closed_steps(table: pd.DataFrame) -> str:
    """A sentence on the steps at which the gate does not allow the autoencoder to be used."""
    closed = sorted(set(table.loc[table["gated"], "step"].tolist()))
    every = table["step"].nunique()
    if not closed:
        return f"The gate closes none of the {counted(every, 'step')}."
    return f"The gate closes {len(closed)} of the {counted(every, 'step')} (open marks): {', '.join(map(str, closed))}."


def write_caption(table: pd.DataFrame, name: str) -> str:
    """Name the autoencoder, and the steps that are closed."""
    return (
        f"Quality of the sparse autoencoder {name} at each denoising step, on held-out tokens; explained variance is "
        f"about the step's own mean. {closed_steps(table)}"
    )


FIGURE = Figure(
    name="sae-quality",
    spec=SaeQualitySpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda _study, spec, table: write_caption(table, spec.name),
)
