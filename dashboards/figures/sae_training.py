"""Training of a sparse autoencoder: four curves, with the metrics on held-out tokens."""

import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from matplotlib.figure import Figure as PaperFigure
from plotly.subplots import make_subplots

from analyses.sae.spec import DEAD_AFTER
from dashboards.drawing import palette
from dashboards.drawing.paper import Width, new_figure
from dashboards.drawing.screen import style
from dashboards.figures.base import Figure
from dashboards.figures.specs import SaeFigureSpec
from dashboards.numbers import significant
from dashboards.results import load_result
from dashboards.tables.features import MEASURES
from workbench.studies.study import Study

PAPER_TITLES = {
    "loss": "loss",
    "explained_variance": "explained variance",
    "l0": "L0",
    "dead_fraction": "dead features",
}
DEAD = (
    "Dead features fired on none of the held-out tokens or, for the curve, on no token of the last "
    f"{DEAD_AFTER} training steps"
)
SCREEN_TITLES = {**PAPER_TITLES, "l0": "L0 (active features per token)"}


class SaeTrainingSpec(SaeFigureSpec):
    """The training of an autoencoder."""


def make_table(study: Study, spec: SaeTrainingSpec) -> pd.DataFrame:
    """The rows of `training_frame` for the autoencoder."""
    return training_frame(load_result(study, spec.result_name))


def training_frame(result: xr.Dataset) -> pd.DataFrame:
    """Training curves and the final metrics on held-out tokens: train_step, metric, split, value."""
    steps = [int(step) for step in result["train_step"].values]
    curves = [
        pd.DataFrame({"train_step": steps, "metric": name, "split": "training", "value": result[name].values})
        for name in MEASURES
    ]
    final = [
        {
            "train_step": steps[-1],
            "metric": name,
            "split": "held-out",
            "value": float(result[f"final_{name}"]),
        }
        for name in MEASURES
    ]
    return pd.concat([*curves, pd.DataFrame(final)], ignore_index=True).astype({"value": float})


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """The four training curves, each with its held-out value as a dashed line."""
    figure = make_subplots(
        rows=1,
        cols=len(MEASURES),
        subplot_titles=[SCREEN_TITLES[name] for name in MEASURES],
        horizontal_spacing=0.06,
    )
    for column, name in enumerate(MEASURES, start=1):
        of_metric = table[table["metric"] == name]
        curve = of_metric[of_metric["split"] == "training"]
        held_out = float(of_metric.loc[of_metric["split"] == "held-out", "value"].iloc[0])
        figure.add_scatter(
            x=curve["train_step"],
            y=curve["value"],
            mode="lines",
            line={"color": palette.SEQUENTIAL[5], "width": 2},
            hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
            row=1,
            col=column,
        )
        figure.add_hline(
            y=held_out,
            line={"color": palette.PLANTED, "width": 1.5, "dash": "dash"},
            annotation={
                "text": f"held-out {significant(held_out)}",
                "font": {"color": palette.PLANTED, "size": 11},
            },
            annotation_position="top right",
            row=1,
            col=column,
        )
        figure.update_xaxes(
            title={"text": "training step", "font": {"size": 11}, "standoff": 4}, row=1, col=column
        )
    figure.update_annotations(selector={"yanchor": "bottom"}, font={"size": 12})
    return style(figure, height=260).update_layout(margin={"t": 32})


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """The four training curves, each with its held-out value as a dashed line."""
    shape = (2, 2) if width == "single" else (1, 4)
    figure = new_figure(width, 1.5 * shape[0])
    for axes, name in zip(figure.subplots(*shape).ravel(), MEASURES, strict=True):
        of_metric = table[table["metric"] == name]
        curve = of_metric[of_metric["split"] == "training"]
        held_out = of_metric.loc[of_metric["split"] == "held-out", "value"].iloc[0]
        axes.plot(curve["train_step"], curve["value"], color=palette.SEQUENTIAL[6])
        axes.axhline(held_out, color=palette.INK, linestyle="--", linewidth=0.8)
        axes.set_title(f"{PAPER_TITLES[name]}\nheld-out {significant(held_out)}", pad=3)
        axes.set_xlabel("training step", labelpad=1)
    return figure


def write_caption(table: pd.DataFrame, name: str) -> str:
    """Name the autoencoder and its metrics on held-out tokens."""
    held_out = table[table["split"] == "held-out"]
    metrics = ", ".join(
        f"{PAPER_TITLES[row.metric]} {significant(row.value)}" for row in held_out.itertuples()
    )
    return f"Training of the sparse autoencoder {name}; dashed: the metrics on held-out tokens ({metrics}). {DEAD}."


FIGURE = Figure(
    name="sae-training",
    spec=SaeTrainingSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda _study, spec, table: write_caption(table, spec.name),
)
