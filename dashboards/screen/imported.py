"""Mean impacts of blocks, published and own, on screen."""

import pandas as pd
import plotly.graph_objects as go

from dashboards.drawing import palette
from dashboards.drawing.screen import plain, style
from dashboards.tables.imported import SIDES

COLOURS = {"published": palette.PLANTED, "own": palette.SEQUENTIAL[5]}
NAMES = {"published": "published", "own": "this study"}


def block_means_bars(frame: pd.DataFrame, threshold: float) -> go.Figure:
    """Bars of `means_frame`, a colour a side; blocks of the functional set are full, the others pale."""
    figure = go.Figure()
    for side in SIDES:
        part = frame[frame["side"] == side]
        if part.empty:
            continue
        figure.add_bar(
            x=part["block"].map(plain),
            y=part["mean"],
            name=NAMES[side],
            marker={
                "color": COLOURS[side],
                "opacity": [1.0 if inside else 0.35 for inside in part["functional"]],
            },
            hovertemplate=f"{NAMES[side]}, %{{x}}: %{{y:.4f}}<extra></extra>",
        )
    figure.add_hline(
        y=threshold,
        line={"color": palette.MUTED, "width": 1, "dash": "dot"},
        annotation={"text": "τ", "font": {"size": 11, "color": palette.MUTED}},
        annotation_position="right",
    )
    figure.update_yaxes(title={"text": "mean impact", "font": {"size": 11}}, fixedrange=True)
    figure.update_xaxes(type="category", fixedrange=True)
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    styled = style(figure, height=300, legend=legend, barmode="group")
    return styled.update_layout(showlegend=True, margin={"t": 40})
