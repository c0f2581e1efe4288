"""Probe maps on paper, and the folds behind one probe."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from dashboards.drawing import palette
from dashboards.drawing.measure import fitting_names, fitting_size, width_of
from dashboards.drawing.paper import (
    POINTS,
    Width,
    draw_cells,
    empty_figure,
    hatch_cells,
    new_figure,
    place_axes,
    write_numbers,
)
from dashboards.drawing.paper_maps import BAR, NAME_SIZE, ROW, TALLEST, colour_bar, name_rows
from dashboards.names import shortened
from dashboards.numbers import fixed
from dashboards.tables.probes import block_labels

COLUMNS = {"single": 1, "double": 2}
LEAST_HEIGHT = 64.0  # points, of the figure, for the colour bar


@dataclass(frozen=True)
class Spacing:
    """Room around the maps of concepts, and how small they may be; in points."""

    gap: float
    title: float
    steps: float  # for the steps' numbers and their name, below each map
    least_wide: float
    least_row: float


ROOMY = Spacing(gap=12.0, title=14.0, steps=26.0, least_wide=48.0, least_row=2.0)
# For dozens of concepts: the lowest maps alone have the steps' numbers.
DENSE = Spacing(gap=4.0, title=10.0, steps=2.0, least_wide=22.0, least_row=1.0)


@dataclass(frozen=True)
class Panels:
    """How the maps of concepts, all of one size, lie on the page; in points."""

    spacing: Spacing
    columns: int
    rows: int
    left: float
    wide: float
    tall: float

    @property
    def height(self) -> float:
        """Of the figure."""
        each = self.spacing.title + self.tall + self.spacing.steps
        return self.rows * each + ROOMY.steps - self.spacing.steps

    def place(self, index: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of a concept's map."""
        down, across = divmod(index, self.columns)
        top = self.spacing.title + down * (self.spacing.title + self.tall + self.spacing.steps)
        return self.left + across * (self.wide + self.spacing.gap), top, self.wide, self.tall

    def has_steps(self, index: int) -> bool:
        """Whether the steps' numbers stand below a concept's map."""
        return self.spacing is ROOMY or index // self.columns == self.rows - 1


def probes_map(frame: pd.DataFrame, quantity: str, width: Width) -> Figure:
    """One map a concept of `quantity` from `probes_frame`; hatched where q >= 0.05."""
    concepts = list(dict.fromkeys(frame["concept"]))
    names = fitting_names(block_labels(frame), 60.0, NAME_SIZE)
    panels = _panels(len(concepts), names, width)
    height = max(panels.height, LEAST_HEIGHT)
    figure = empty_figure(width, height)
    for index, concept in enumerate(concepts):
        one = frame[frame["concept"] == concept]
        mesh = _draw_panel(figure, one, quantity, panels, index, names)
    bar = min(150.0, height - 18)
    colour_bar(figure, mesh, quantity, POINTS[width] - BAR + 8, panels.spacing.title, bar)
    return figure


def _panels(n: int, names: list[str], width: Width) -> Panels:
    """The fewest columns with which all maps are on one page, close together where that is the only way."""
    left = max(width_of(name, NAME_SIZE) for name in names) + 6
    for spacing in (ROOMY, DENSE):
        for columns in range(min(COLUMNS[width], n), n + 1):
            rows = -(-n // columns)
            row = ((TALLEST - ROOMY.steps) / rows - spacing.title - spacing.steps) / len(names)
            wide = (POINTS[width] - left - BAR - (columns - 1) * spacing.gap) / columns
            if wide < spacing.least_wide:
                break
            panels = Panels(spacing, columns, rows, left, wide, len(names) * min(0.9 * ROW, max(row, 1.0)))
            if row >= spacing.least_row:
                return panels
    return panels  # more than a page


def _draw_panel(
    figure: Figure, frame: pd.DataFrame, quantity: str, panels: Panels, index: int, names: list[str]
) -> QuadMesh:
    blocks, steps = list(dict.fromkeys(frame["block"])), list(dict.fromkeys(frame["step"]))

    def table(column: str) -> np.ndarray:
        return frame.pivot(index="block", columns="step", values=column).loc[blocks, steps].to_numpy(float)

    axes = place_axes(figure, *panels.place(index))
    row = panels.tall / len(blocks)
    lefts, tops = list(map(float, range(len(steps)))), list(map(float, range(len(blocks))))
    cell = panels.wide / len(steps)
    mesh = draw_cells(axes, table(quantity), lefts, tops, min(cell, row))
    hatch_cells(axes, ~(table("q_value") < 0.05), lefts, tops)
    write_numbers(axes, table(quantity), lefts, tops, cell, row)
    axes.set_xlim(0, len(steps))
    axes.set_ylim(len(blocks), 0)
    name_rows(axes, tops, names if index % panels.columns == 0 else [""] * len(names), row)
    labels = [str(step) for step in steps]
    one_in = -int(-(max(width_of(label, NAME_SIZE) for label in labels) + 4) // cell)
    if panels.has_steps(index):
        axes.set_xticks([left + 0.5 for left in lefts[::one_in]], labels[::one_in], fontsize=NAME_SIZE)
        axes.tick_params(axis="x", pad=2)
        if size := fitting_size("denoising step", panels.wide, NAME_SIZE):
            axes.set_xlabel("denoising step", labelpad=1, fontsize=size)
    else:
        axes.set_xticks([])
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
