"""A published map beside the study's own: mean impacts of blocks, and the cells. On screen only."""

import pandas as pd
import plotly.graph_objects as go

from analyses.patching.published_map import functional_set
from dashboards.drawing import palette
from dashboards.drawing.screen import plain, style
from dashboards.tables.comparison import VALUES, Map

NAMES = {"published": "published", "own": "this study"}
COLOURS = {"published": palette.PLANTED, "own": palette.SEQUENTIAL[5]}


def means_frame(published: Map, own: Map | None, threshold: float) -> pd.DataFrame:
    """Mean impact of each block over each map's concepts: side, block, mean, functional (mean at least `threshold`).

    The study's sets of blocks are left out, since published tables have single blocks.
    """
    parts = []
    for side, one in zip(NAMES, (published, own), strict=True):
        if one is None:
            continue
        cells = one.cells[one.cells["row"].isin(published.rows) | (one.cells["block"] >= 0)]
        means = cells.groupby("row", sort=False)["impact"].mean()
        kept = functional_set(means, threshold)
        parts.append(
            pd.DataFrame(
                {
                    "side": side,
                    "block": means.index,
                    "mean": means.values,
                    "functional": means.index.isin(kept),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def maps_frame(published: Map, own: Map | None) -> pd.DataFrame:
    """The cells of both maps with all their concepts, in the form of a comparison's frame."""
    parts = [
        one.cells.assign(side=side, map=one.name)
        for side, one in zip(NAMES, (published, own), strict=True)
        if one is not None
    ]
    return pd.concat(parts, ignore_index=True)[["side", "map", "concept", "row", "block", *VALUES]]


def draw_means(frame: pd.DataFrame, threshold: float) -> go.Figure:
    """Bars of `means_frame`, one colour per side; blocks outside the functional set are pale."""
    figure = go.Figure()
    for side in NAMES:
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
