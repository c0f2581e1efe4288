"""Training curves of a sparse autoencoder and the figure of one feature, on screen."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards import palette
from dashboards.frames.features import MEASURES, telling_values
from dashboards.numbers import fixed, significant
from dashboards.screen.style import LONGEST_NAME, plain, style

MEASURE_TITLES = {
    "loss": "loss",
    "explained_variance": "explained variance",
    "l0": "L0 (active features a row)",
    "dead_share": "dead share",
}
MOST_VALUES = 40  # concept values shown; a feature card with hundreds cannot be read
ACCENT = palette.SEQUENTIAL[5]


def sae_training(frame: pd.DataFrame) -> go.Figure:
    """The four training curves of `training_frame`, each with its held-out value as a dashed line."""
    figure = make_subplots(
        rows=1,
        cols=len(MEASURES),
        subplot_titles=[MEASURE_TITLES[name] for name in MEASURES],
        horizontal_spacing=0.06,
    )
    for column, name in enumerate(MEASURES, start=1):
        of_measure = frame[frame["measure"] == name]
        curve = of_measure[of_measure["split"] == "training"]
        held_out = float(of_measure.loc[of_measure["split"] == "held-out", "value"].iloc[0])
        figure.add_scatter(
            x=curve["train_step"],
            y=curve["value"],
            mode="lines",
            line={"color": ACCENT, "width": 2},
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


def feature_panels(frame: pd.DataFrame) -> go.Figure:
    """Histogram, per-step profile and concept scores of one feature, from `feature_frame`."""
    panels = {str(name): panel for name, panel in frame.groupby("panel")}
    scores = telling_values(panels.get("auroc", frame.iloc[:0]), MOST_VALUES)
    left_out = len(panels.get("auroc", frame.iloc[:0])) - len(scores)
    title = (
        f"AUROC, furthest {len(scores)} of {len(panels['auroc'])}" if left_out else "AUROC by concept value"
    )
    figure = make_subplots(
        rows=1,
        cols=4,
        specs=[[{}, {}, None, {}]],  # the empty column leaves room for the names of the concept values
        column_widths=[0.29, 0.25, 0.12, 0.34],
        horizontal_spacing=0.08,
        subplot_titles=["positive activations", "mean activation by step", title],
    )
    _histogram(figure, panels["histogram"])
    _profile(figure, panels["step_profile"])
    _scores(figure, scores)
    figure.update_annotations(font={"size": 12})
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    height = max(280, 90 + 17 * len(scores))
    return style(figure, height=height, bargap=0.25).update_layout(margin={"t": 32})


def _histogram(figure: go.Figure, panel: pd.DataFrame) -> None:
    edges = panel["x"].to_numpy()
    widths = np.diff(edges, append=2 * edges[-1] - edges[-2]) if len(edges) > 1 else np.ones(len(edges))
    figure.add_bar(
        x=edges,
        y=panel["value"],
        width=widths,
        offset=0,
        marker={"color": ACCENT, "line": {"color": "white", "width": 0.5}},
        hovertemplate="from %{x:.3g}: %{y} rows<extra></extra>",
        row=1,
        col=1,
    )
    figure.update_xaxes(title={"text": "activation", "font": {"size": 11}, "standoff": 4}, row=1, col=1)
    figure.update_xaxes(nticks=4, tickangle=0, row=1, col=1)
    figure.update_yaxes(title={"text": "rows", "font": {"size": 11}, "standoff": 4}, row=1, col=1)


def _profile(figure: go.Figure, panel: pd.DataFrame) -> None:
    figure.add_scatter(
        x=panel["x"],
        y=panel["value"],
        mode="lines+markers",
        line={"color": ACCENT, "width": 2},
        hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
        row=1,
        col=2,
    )
    figure.update_yaxes(rangemode="tozero", exponentformat="e", nticks=6, row=1, col=2)
    figure.update_xaxes(title={"text": "denoising step", "font": {"size": 11}, "standoff": 4}, row=1, col=2)


def _scores(figure: go.Figure, panel: pd.DataFrame) -> None:
    places = list(range(len(panel)))
    figure.add_bar(
        x=panel["value"] - 0.5,
        base=0.5,
        y=places,
        orientation="h",
        marker={"color": np.where(panel["value"] >= 0.5, ACCENT, palette.SEQUENTIAL[2])},
        customdata=[
            (plain(label), fixed(value, 3))
            for label, value in zip(panel["label"], panel["value"], strict=True)
        ],
        hovertemplate="%{customdata[0]}: AUROC %{customdata[1]}<extra></extra>",
        row=1,
        col=4,
    )
    figure.update_xaxes(range=[0, 1], tickvals=[0, 0.5, 1], row=1, col=4)
    figure.update_xaxes(title={"text": "0.5 = chance", "font": {"size": 11}, "standoff": 4}, row=1, col=4)
    names = [plain(label, LONGEST_NAME) for label in panel["label"]]
    figure.update_yaxes(tickvals=places, ticktext=names, tickfont={"size": 10}, row=1, col=4)
