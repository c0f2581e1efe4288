"""Training curves of a sparse autoencoder and the figure of one feature, on screen."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.drawing import palette
from dashboards.drawing.screen import LONGEST_NAME, plain, style
from dashboards.numbers import fixed, significant
from dashboards.tables.features import MEASURES, telling_values

MEASURE_TITLES = {
    "loss": "loss",
    "explained_variance": "explained variance",
    "l0": "L0 (active features a row)",
    "dead_fraction": "dead features",
}
UPPER, GAP = 170, 75  # pixels of a feature's upper panels, and between them and the lower one
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
    lower = max(60, 17 * len(scores))
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[{}, {}], [{"colspan": 2}, None]],  # at the edge, names of concept values push the bars aside
        row_heights=[UPPER, lower],
        vertical_spacing=GAP / (UPPER + lower + GAP),
        horizontal_spacing=0.14,
        subplot_titles=["positive activations", "mean activation by step", title],
    )
    _histogram(figure, panels["histogram"])
    _profile(figure, panels["step_profile"])
    _scores(figure, scores)
    figure.update_annotations(font={"size": 12})
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return style(figure, height=UPPER + lower + GAP + 80, bargap=0.25).update_layout(margin={"t": 32})


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
        row=2,
        col=1,
    )
    figure.update_xaxes(range=[0, 1], tickvals=[0, 0.5, 1], row=2, col=1)
    figure.update_xaxes(title={"text": "0.5 = chance", "font": {"size": 11}, "standoff": 4}, row=2, col=1)
    names = [plain(label, LONGEST_NAME) for label in panel["label"]]
    figure.update_yaxes(tickvals=places, ticktext=names, tickfont={"size": 10}, row=2, col=1)
