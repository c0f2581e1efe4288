"""Probe maps on paper, and the folds behind one probe."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from dashboards import palette
from dashboards.frames.probes import block_labels
from dashboards.names import shortened
from dashboards.numbers import fixed
from dashboards.paper.maps import BAR, NAME_SIZE, ROW, TALLEST, colour_bar, name_rows
from dashboards.paper.measure import fitting_names, fitting_size, width_of
from dashboards.paper.style import (
    POINTS,
    Width,
    draw_cells,
    empty_figure,
    hatch_cells,
    new_figure,
    place_axes,
    write_numbers,
)

COLUMNS = {"single": 1, "double": 2}
LEAST_ROW = 2.0  # points; with more concepts than leave that, more stand beside each other
GAP = 12.0
TITLE = 14.0
STEPS = 26.0  # room for the steps' numbers and their name
LEAST_HEIGHT = 64.0  # of the figure, for the colour bar


@dataclass(frozen=True)
class Panels:
    """How the maps of concepts, all of one size, lie on the page; in points."""

    columns: int
    rows: int
    left: float
    wide: float
    row: float

    def place(self, index: int, blocks: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of a concept's map."""
        down, across = divmod(index, self.columns)
        top = TITLE + down * (TITLE + STEPS + self.row * blocks)
        return self.left + across * (self.wide + GAP), top, self.wide, self.row * blocks


def probes_map(frame: pd.DataFrame, quantity: str, width: Width) -> Figure:
    """One map a concept of `quantity` from `probes_frame`; hatched where q >= 0.05."""
    concepts = list(dict.fromkeys(frame["concept"]))
    names = fitting_names(block_labels(frame), 60.0, NAME_SIZE)
    panels = _panels(len(concepts), names, width)
    height = panels.rows * (TITLE + STEPS + panels.row * len(names))
    figure = empty_figure(width, max(height, LEAST_HEIGHT))
    for index, concept in enumerate(concepts):
        one = frame[frame["concept"] == concept]
        mesh = _draw_panel(figure, one, quantity, panels, index, names)
    colour_bar(
        figure, mesh, quantity, POINTS[width] - BAR + 8, TITLE, min(150.0, max(height, LEAST_HEIGHT) - 18)
    )
    return figure


def _panels(n: int, names: list[str], width: Width) -> Panels:
    left = max(width_of(name, NAME_SIZE) for name in names) + 6
    for columns in range(min(COLUMNS[width], n), n + 1):
        rows = -(-n // columns)
        room = (TALLEST / rows - TITLE - STEPS) / len(names)
        if room >= LEAST_ROW:
            break
    wide = (POINTS[width] - left - BAR - (columns - 1) * GAP) / columns
    return Panels(columns, rows, left, wide, min(ROW * 0.9, max(room, LEAST_ROW)))


def _draw_panel(
    figure: Figure, frame: pd.DataFrame, quantity: str, panels: Panels, index: int, names: list[str]
) -> QuadMesh:
    blocks, steps = list(dict.fromkeys(frame["block"])), list(dict.fromkeys(frame["step"]))

    def table(column: str) -> np.ndarray:
        return frame.pivot(index="block", columns="step", values=column).loc[blocks, steps].to_numpy(float)

    axes = place_axes(figure, *panels.place(index, len(blocks)))
    lefts, tops = list(map(float, range(len(steps)))), list(map(float, range(len(blocks))))
    cell = panels.wide / len(steps)
    mesh = draw_cells(axes, table(quantity), lefts, tops, min(cell, panels.row))
    hatch_cells(axes, ~(table("q_value") < 0.05), lefts, tops)
    write_numbers(axes, table(quantity), lefts, tops, cell, panels.row)
    axes.set_xlim(0, len(steps))
    axes.set_ylim(len(blocks), 0)
    name_rows(axes, tops, names if index % panels.columns == 0 else [""] * len(names), panels.row)
    labels = [str(step) for step in steps]
    one_in = -int(-(max(width_of(label, NAME_SIZE) for label in labels) + 4) // cell)
    axes.set_xticks([left + 0.5 for left in lefts[::one_in]], labels[::one_in], fontsize=NAME_SIZE)
    axes.tick_params(axis="x", pad=2)
    if size := fitting_size("denoising step", panels.wide + GAP / 2, NAME_SIZE):
        axes.set_xlabel("denoising step", labelpad=1, fontsize=size)
    _title(axes, frame, panels.wide)
    return mesh


def _title(axes: Any, frame: pd.DataFrame, wide: float) -> None:
    concept = str(frame["concept"].iloc[0])
    full = f"{shortened(concept, 40)} (chance {fixed(float(frame['chance'].iloc[0]))})"
    size = fitting_size(full, wide, 8.0)
    text = full if size else fitting_names([concept], wide, 6.0)[0]
    axes.set_title(text, fontsize=size or 6.0, pad=3)


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
    axes.set_xticks(places, [str(fold) for fold in frame["fold"]])
    axes.set_xlabel("fold", labelpad=1)
    axes.set_ylabel("balanced accuracy")
    cell = frame.iloc[0]
    axes.set_title(f"{shortened(cell['concept'], 24)}, {cell['site']}, step {cell['step']}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, handlelength=1.5)
    return figure
