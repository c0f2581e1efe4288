"""Probe maps on screen, and the folds behind one probe."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.captions import interval
from dashboards.drawing import palette
from dashboards.drawing.screen import LONGEST_NAME, color_axis, hatch, plain, selection, style
from dashboards.numbers import fixed, p_value
from dashboards.tables.probes import block_labels

COLUMNS = 2
TRACES = 3  # of each concept: its heatmap and its hatching on light and on dark cells
ROW_PIXELS = 22
NUMBERS_UP_TO = 12  # steps across; more and the numbers no longer fit their cells
HOVER = (
    "<b>%{customdata[0]} · %{customdata[1]} · step %{customdata[2]}</b><br>%{customdata[3]}<extra></extra>"
)


def probes_map(frame: pd.DataFrame, quantity: str, selected: tuple[str, str, int] | None = None) -> go.Figure:
    """One heatmap a concept, blocks down and steps across, of `quantity` from `probes_frame`.

    Cells not clearly above their control (q >= 0.05) are hatched, the `selected` one (concept, site, step) is outlined.
    """
    concepts = list(dict.fromkeys(frame["concept"]))
    rows = -(-len(concepts) // COLUMNS)
    chance = frame.groupby("concept")["chance"].first()
    height = rows * (ROW_PIXELS * frame["block"].nunique() + 84)
    figure = make_subplots(
        rows=rows,
        cols=min(COLUMNS, len(concepts)),
        subplot_titles=[
            f"<b>{plain(concept, LONGEST_NAME)}</b>  (chance {fixed(chance[concept])})"
            for concept in concepts
        ],
        horizontal_spacing=0.09,
        vertical_spacing=86 / height,
    )
    for index, concept in enumerate(concepts):
        place = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}
        mark = selected[1:] if selected is not None and selected[0] == concept else None
        _add_panel(figure, frame[frame["concept"] == concept], quantity, mark, place)
    figure.update_annotations(font={"size": 13, "color": palette.INK})
    styled = style(figure, height=height, coloraxis=color_axis(quantity), clickmode="event")
    return styled.update_layout(margin={"t": 34})


def probe_at(frame: pd.DataFrame, curve: int, x: float, y: float) -> tuple[str, str, int] | None:
    """The probe (concept, site, step) at a place of the map in axis units, in the trace numbered `curve`.

    A click on a heatmap tells its place and nothing else.
    """
    concepts, sites, steps = (list(dict.fromkeys(frame[name])) for name in ("concept", "site", "step"))
    column, row = int(x), int(y)
    known = 0 <= column < len(steps) and 0 <= row < len(sites)
    return (concepts[curve // TRACES], sites[row], int(steps[column])) if known else None


def _add_panel(
    figure: go.Figure,
    frame: pd.DataFrame,
    quantity: str,
    selected: tuple[str, int] | None,
    place: dict[str, int],
) -> None:
    frame = frame.assign(
        hover=[_hover(row) for row in frame.to_dict("records")], name=frame["concept"].map(plain)
    )
    sites, steps = list(dict.fromkeys(frame["site"])), list(dict.fromkeys(frame["step"]))

    def table(column: str) -> np.ndarray:
        return frame.pivot(index="site", columns="step", values=column).loc[sites, steps].to_numpy()

    values = table(quantity).astype(float)
    lefts, tops = list(map(float, range(len(steps)))), list(map(float, range(len(sites))))
    figure.add_heatmap(
        z=values,
        x=list(range(len(steps) + 1)),
        y=list(range(len(sites) + 1)),
        coloraxis="coloraxis",
        customdata=np.stack([table(name) for name in ("name", "site", "step", "hover")], axis=-1),
        hovertemplate=HOVER,
        text=np.vectorize(lambda value: "" if np.isnan(value) else f"{value:z.2f}", otypes=[object])(values),
        texttemplate="%{text}" if len(steps) <= NUMBERS_UP_TO else "",
        textfont={"size": 10},
        xgap=1,
        ygap=1,
        **place,
    )
    unclear = ~(table("q_value").astype(float) < 0.05)
    for trace in hatch(unclear, values, lefts, tops, sparse=len(steps) > NUMBERS_UP_TO):
        figure.add_trace(trace, **place)
    ticks = steps if len(steps) <= NUMBERS_UP_TO else steps[:: -(-len(steps) // NUMBERS_UP_TO)]
    figure.update_xaxes(
        tickvals=[steps.index(step) + 0.5 for step in ticks],
        ticktext=[str(step) for step in ticks],
        title={"text": "denoising step", "font": {"size": 11, "color": palette.MUTED}, "standoff": 4},
        range=[0, len(steps)],
        **place,
    )
    names = list(map(plain, block_labels(frame)))
    figure.update_yaxes(
        tickvals=[top + 0.5 for top in tops],
        ticktext=names,
        range=[len(sites), 0],
        **place,
    )
    figure.update_xaxes(showgrid=False, fixedrange=True, **place)
    figure.update_yaxes(showgrid=False, fixedrange=True, **place)
    if selected is not None and selected[0] in sites and selected[1] in steps:
        for shape in selection(float(steps.index(selected[1])), float(sites.index(selected[0]))):
            figure.add_shape(shape, **place)


def _hover(row: dict[Hashable, Any]) -> str:
    return (
        f"accuracy {interval(row, 'accuracy', 3)}<br>"
        f"shuffled labels {fixed(row['control'], 3)}, selectivity {fixed(row['selectivity'], 3)}<br>"
        f"chance {fixed(row['chance'], 3)}, q = {p_value(row['q_value'])}, σ = {fixed(row['sigma'], 3)}<br>"
        f"n = {fixed(row['n'], 0)} clips from {fixed(row['groups'], 0)} prompts"
    )


def probe_folds(frame: pd.DataFrame) -> go.Figure:
    """Balanced accuracy of each fold beside that of the probe trained on shuffled labels, from `folds_frame`."""
    figure = go.Figure()
    for index, (column, name) in enumerate((("accuracy", "true labels"), ("control", "shuffled labels"))):
        values = frame[column]
        figure.add_bar(
            x=[f"fold {fold}" for fold in frame["fold"]],
            y=values,
            name=name,
            marker={
                "color": palette.SEQUENTIAL[5 if index == 0 else 1],
                "line": {"color": palette.INK, "width": 0.5},
            },
            hovertemplate="%{x}, " + name + ": %{y:.3f}<extra></extra>",
        )
    chance = float(frame["chance"].iloc[0])
    figure.add_hline(
        y=chance,
        line={"color": palette.PLANTED, "width": 1.5, "dash": "dash"},
        name=f"chance {fixed(chance)}",
        showlegend=True,
    )
    figure.update_yaxes(
        range=[0, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1], title="balanced accuracy", fixedrange=True
    )
    figure.update_xaxes(fixedrange=True)
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    styled = style(figure, height=300, barmode="group", bargap=0.3, legend=legend)
    return styled.update_layout(showlegend=True, margin={"t": 40})
