"""Probe maps on paper, and the folds behind one probe."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from dashboards import palette
from dashboards.frames.probes import block_labels
from dashboards.paper.style import (
    INCHES,
    POINTS_PER_INCH,
    Width,
    draw_cells,
    hatch_cells,
    new_figure,
    write_numbers,
)

COLUMNS = {"single": 1, "double": 2}
ROW_INCHES = 0.17
MAX_TICKS = 12


def probes_map(frame: pd.DataFrame, quantity: str, width: Width) -> Figure:
    """One map a concept of `quantity` from `probes_frame`; hatched where q >= 0.05."""
    concepts = list(dict.fromkeys(frame["concept"]))
    columns = min(COLUMNS[width], len(concepts))
    rows = -(-len(concepts) // columns)
    figure = new_figure(width, rows * (ROW_INCHES * frame["block"].nunique() + 0.6))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    panel_points = (INCHES[width] - 0.7) / columns * POINTS_PER_INCH - 24
    for concept, axes in zip(concepts, panels, strict=False):
        mesh = _draw_panel(axes, frame[frame["concept"] == concept], quantity, panel_points)
    for axes in panels[len(concepts) :]:
        axes.set_visible(False)
    bar = figure.colorbar(mesh, ax=panels.tolist(), label=quantity, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    return figure


def _draw_panel(axes: Axes, frame: pd.DataFrame, quantity: str, panel_points: float) -> QuadMesh:
    blocks, steps = list(dict.fromkeys(frame["block"])), list(dict.fromkeys(frame["step"]))

    def table(column: str) -> np.ndarray:
        return frame.pivot(index="block", columns="step", values=column).loc[blocks, steps].to_numpy(float)

    lefts, tops = list(map(float, range(len(steps)))), list(map(float, range(len(blocks))))
    mesh = draw_cells(axes, table(quantity), lefts, tops)
    hatch_cells(axes, ~(table("q_value") < 0.05), lefts, tops)
    write_numbers(axes, table(quantity), lefts, tops, panel_points / len(steps))
    axes.set_ylim(len(blocks), 0)
    axes.set_yticks([top + 0.5 for top in tops], block_labels(frame))
    shown = steps[:: -(-len(steps) // MAX_TICKS)]
    axes.set_xticks([steps.index(step) + 0.5 for step in shown], [str(step) for step in shown])
    axes.set_xlabel("denoising step", labelpad=1)
    axes.set_title(f"{frame['concept'].iloc[0]} (chance {frame['chance'].iloc[0]:.2f})", pad=3)
    return mesh


def probe_folds(frame: pd.DataFrame, width: Width) -> Figure:
    """Balanced accuracy of each fold beside that of the probe trained on shuffled labels, from `folds_frame`."""
    figure = new_figure(width, 2.0)
    axes = figure.subplots()
    places = np.arange(len(frame))
    bars: dict[str, Any] = {"edgecolor": palette.INK, "linewidth": 0.5, "width": 0.38}
    axes.bar(places - 0.2, frame["accuracy"], color=palette.SEQUENTIAL[5], label="true labels", **bars)
    axes.bar(places + 0.2, frame["control"], color="white", hatch="////", label="shuffled labels", **bars)
    axes.axhline(frame["chance"].iloc[0], color=palette.INK, linestyle="--", linewidth=0.8, label="chance")
    axes.set_ylim(0, 1.02)
    axes.set_xticks(places, [f"fold {fold}" for fold in frame["fold"]])
    axes.set_ylabel("balanced accuracy")
    cell = frame.iloc[0]
    axes.set_title(f"{cell['concept']}, {cell['site']}, step {cell['step']}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, handlelength=1.5)
    return figure
