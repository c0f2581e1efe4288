"""The patching map on paper, and what one cell moves in each pair."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dashboards import palette
from dashboards.frames.patching import UNCLEAR
from dashboards.grids import Grid, Section, lay_out, panel_title
from dashboards.paper.style import (
    INCHES,
    POINTS_PER_INCH,
    Width,
    draw_cells,
    hatch_cells,
    new_figure,
    write_numbers,
)

ROW_INCHES = 0.19
SIDE_INCHES = 1.1  # row names and colour bar
CHARACTER_POINTS = 4.6  # of a label
WORDLESS = ("undefined", "no score")  # statuses without a number


def patching_map(frame: pd.DataFrame, width: Width) -> Figure:
    """Heatmap of impact from `patching_frame`; hatched where not significant or inside the null band."""
    grid = lay_out(frame)
    figure = new_figure(width, map_inches(grid, INCHES[width]))
    draw_map(figure, figure.subplots(), frame, INCHES[width])
    return figure


def map_inches(grid: Grid, inches: float) -> float:
    """Height of a map that is `inches` wide."""
    longest = max(len(across) for _, across in grid.lefts)
    labels = 0.07 * longest if _upright(grid, inches) else 0.15
    return ROW_INCHES * grid.height + 0.45 + labels


def draw_map(figure: Figure, axes: Axes, frame: pd.DataFrame, inches: float) -> None:
    """Draw a frame that `lay_out` can place into axes that are `inches` wide, with its colour bar."""
    grid = lay_out(frame)
    cell_points = _cell_points(grid, inches)
    meshes = [draw_section(axes, section, cell_points) for section in grid.sections]
    _mark_planted(axes, frame, grid)
    axes.set_xlim(0, grid.width)
    axes.set_ylim(grid.height, 0)
    axes.set_xticks([left + 0.5 for left in grid.lefts.values()], [across for _, across in grid.lefts])
    if _upright(grid, inches):
        axes.tick_params(axis="x", rotation=90)
    axes.set_yticks([top + 0.5 for top in grid.tops.values()], list(grid.tops))
    for panel, middle in grid.panels.items():
        title = panel_title(panel)
        fits = len(title) * CHARACTER_POINTS < cell_points * sum(owner == panel for owner, _ in grid.lefts)
        axes.text(middle, -0.25, title if fits or len(grid.panels) == 1 else panel, ha="center", va="bottom")
    bar = figure.colorbar(meshes[0], ax=axes, label="impact", aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)


def _cell_points(grid: Grid, inches: float) -> float:
    return (inches - SIDE_INCHES) * POINTS_PER_INCH / grid.width


def _upright(grid: Grid, inches: float) -> bool:
    """Whether the columns' names are too long to stand beside each other."""
    return max(len(across) for _, across in grid.lefts) * CHARACTER_POINTS > _cell_points(grid, inches)


def draw_section(axes: Axes, section: Section, cell_points: float) -> QuadMesh:
    """Draw cells without gaps between them, with their numbers or, where there is none, what they are."""
    impact, status = section.numbers("impact"), section.table("status").astype(str)
    lefts, tops = section.lefts, section.tops
    mesh = draw_cells(axes, impact, lefts, tops)
    hatch_cells(axes, np.isin(status, UNCLEAR), lefts, tops)
    write_numbers(axes, impact, lefts, tops, cell_points)
    for (row, column), word in np.ndenumerate(status):
        corner = (lefts[column], tops[row])
        if word == "None":  # the map has no such cell
            axes.add_patch(Rectangle(corner, 1, 1, color="white"))
        elif word in WORDLESS:
            size = min(7.0, cell_points / 5.5)
            words: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "color": palette.MUTED}
            axes.text(corner[0] + 0.5, corner[1] + 0.5, word if size >= 4 else "–", **words)
    return mesh


def _mark_planted(axes: Axes, frame: pd.DataFrame, grid: Grid) -> None:
    planted = frame[frame["planted"]] if "planted" in frame else frame.iloc[:0]
    for cell in planted.itertuples():
        left, top = grid.corner(cell)
        corner = (left + 0.04, top + 0.06)
        axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=palette.PLANTED, linewidth=1.2))


def changes(frame: pd.DataFrame, width: Width) -> Figure:
    """What one arm moves in each pair beside what there was to move, from `changes_frame`: box and one dot a run."""
    figure = new_figure(width, 1.5)
    axes = figure.subplots()
    quantities = list(dict.fromkeys(frame["quantity"]))
    for row, quantity in enumerate(quantities):
        values = frame.loc[frame["quantity"] == quantity, "value"].dropna().to_numpy()
        ink = {"color": palette.MUTED, "linewidth": 0.8}
        axes.boxplot(
            values,
            positions=[row],
            orientation="horizontal",
            widths=0.5,
            showfliers=False,
            medianprops={**ink, "linewidth": 1.4},
            boxprops=ink,
            whiskerprops=ink,
            capprops=ink,
        )
        offsets = 0.3 * (((np.arange(len(values)) * 0.618034) % 1.0) - 0.5)
        colour = palette.SEQUENTIAL[5 if row == 0 else 3]
        axes.scatter(values, row + offsets, s=11, color=colour, edgecolor="white", linewidth=0.3, zorder=3)
    axes.axvline(0, color=palette.MUTED, linestyle=":", linewidth=0.8)
    axes.set_ylim(len(quantities) - 0.5, -0.5)
    axes.set_yticks(range(len(quantities)), quantities)
    axes.set_xlabel("difference of scores")
    axes.set_title(f"{frame['concept'].iloc[0]}, {frame['arm'].iloc[0]}")
    return figure
