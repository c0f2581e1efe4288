"""Impact maps on paper: the layout of cells, names, titles and the colour bar. Lengths in points.

Everything is laid out from measured text before it is drawn. Rather than overlap, names are shortened or left out, and
numbers are made smaller or left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dashboards.drawing import palette
from dashboards.drawing.grids import Grid, Section, lay_out
from dashboards.drawing.measure import LINE, every, fitting_names, fitting_size, width_of, wrapped
from dashboards.drawing.paper import draw_cells, hatch_cells, place_axes, write_numbers
from dashboards.names import shortened
from dashboards.tables.patching import SCREENED_OUT, UNCLEAR, UNTESTED

ROW = 13.7
MIN_ROW = 3.0
TALLEST = 560.0  # all rows together; with names and titles they fit on a page
NAME_SIZE = 7.0
MAX_NAMES = 0.34  # largest fraction of the width for row names
LONGEST_COLUMN_NAME = 80.0
TITLE = 14.0
MIN_TITLE = 6.0
BAR = 44.0  # colour bar with its numbers and title
BAR_HEIGHTS = (46.0, 150.0)
NUMBER_CELL = 13.0  # a cell this wide has room for its number
NOTE_SIZE = 6.5
WITHOUT_NUMBER = ("undefined", "no score", SCREENED_OUT)  # statuses without a number


@dataclass(frozen=True)
class Strip:
    """A map or, if its panels are stacked, one panel: sizes of its rows and columns, and their names."""

    frame: pd.DataFrame
    grid: Grid
    row: float
    column: float
    left: float
    row_names: list[str]
    column_names: list[str]
    upright: bool

    @property
    def names_height(self) -> float:
        """Height of the column names below the cells."""
        widths = [width_of(name, NAME_SIZE) for name in self.column_names]
        return (max(widths) if self.upright else NAME_SIZE * LINE) + 8

    @property
    def height(self) -> float:
        """Height including the title and names."""
        return TITLE + self.row * self.grid.height + self.names_height


def strips(frame: pd.DataFrame, width: float) -> list[Strip]:
    """Split a frame for `lay_out` into strips: one, or one per panel if its cells would be too narrow."""
    grid = lay_out(frame)
    left = max(width_of(name, NAME_SIZE) for name in _row_names(grid, width)) + 6
    beside = (width - left - BAR) / grid.width
    below = beside < NUMBER_CELL and len(grid.panels) > 1
    parts = [part for _, part in frame.groupby("panel", sort=False)] if below else [frame]
    return [_strip(part, left, width, TALLEST / len(parts)) for part in parts]


def _strip(frame: pd.DataFrame, left: float, width: float, tallest: float) -> Strip:
    grid = lay_out(frame)
    column = (width - left - BAR) / grid.width
    names = fitting_names([across for _, across in grid.lefts], LONGEST_COLUMN_NAME, NAME_SIZE)
    upright = max(width_of(name, NAME_SIZE) for name in names) > column - 3
    row = min(ROW, max(MIN_ROW, tallest / grid.height))
    return Strip(frame, grid, row, column, left, _row_names(grid, width), names, upright)


def _row_names(grid: Grid, width: float) -> list[str]:
    """Names of the rows, without the number of null arms behind a null row."""
    return fitting_names(list(grid.tops), MAX_NAMES * width, NAME_SIZE)


def map_height(parts: list[Strip], notes: list[str], width: float) -> float:
    """Height of a map including its notes."""
    return max(sum(part.height for part in parts), TITLE + BAR_HEIGHTS[0] + 6) + _notes_height(notes, width)


def draw_map(
    figure: Figure, parts: list[Strip], notes: list[str], top: float = 0.0, title: str = "impact"
) -> None:
    """Draw a map below `top`, the distance from the figure's upper edge.

    Cells are coloured by their impact, or their `level` if the frame has one; `title` names the colours.
    """
    width = 72 * figure.get_figwidth()
    start = top
    for part in parts:
        tall = part.row * part.grid.height
        axes = place_axes(figure, part.left, start + TITLE, part.column * part.grid.width, tall)
        mesh = _draw_strip(axes, part)
        if part is parts[0]:
            shown = min(max(tall, BAR_HEIGHTS[0]), BAR_HEIGHTS[1])
            colour_bar(figure, mesh, title, width - BAR + 8, start + TITLE, shown)
        start += part.height
    lines = [line for note in notes for line in wrapped(note, width - 8, NOTE_SIZE)]
    tall = 72 * figure.get_figheight()
    start = top + map_height(parts, [], width)
    for number, line in enumerate(lines):
        y = 1 - (start + NOTE_SIZE * LINE * number) / tall
        figure.text(4 / width, y, line, fontsize=NOTE_SIZE, va="top", color=palette.MUTED)


def _notes_height(notes: list[str], width: float) -> float:
    lines = [line for note in notes for line in wrapped(note, width - 8, NOTE_SIZE)]
    return NOTE_SIZE * LINE * len(lines) + (3 if lines else 0)


def colour_bar(figure: Figure, mesh: QuadMesh, title: str, left: float, top: float, height: float) -> None:
    """A slim bar from 0 to 1."""
    bar = figure.colorbar(mesh, cax=place_axes(figure, left, top, 6.0, height), label=title)
    bar.set_ticks([0, 0.5, 1] if height < 90 else [0, 0.2, 0.4, 0.6, 0.8, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=NAME_SIZE)
    bar.ax.yaxis.label.set_fontsize(NAME_SIZE)


def _draw_strip(axes: Axes, part: Strip) -> QuadMesh:
    grid = part.grid
    meshes = [_draw_section(axes, section, part) for section in grid.sections]
    _mark_planted(axes, part.frame, grid)
    axes.set_xlim(0, grid.width)
    axes.set_ylim(grid.height, 0)
    name_rows(axes, list(grid.tops.values()), part.row_names, part.row)
    one_in = every(NAME_SIZE, part.column) if part.upright else 1
    ticks, shown, seen = [], [], dict.fromkeys(grid.panels, 0)
    for ((panel, _), left), name in zip(grid.lefts.items(), part.column_names, strict=True):
        if seen[panel] % one_in == 0:
            ticks.append(left + 0.5)
            shown.append(name)
        seen[panel] += 1
    axes.set_xticks(ticks, shown, fontsize=NAME_SIZE, rotation=90 if part.upright else 0)
    axes.tick_params(axis="x", pad=2)
    rooms = [part.column * (seen[panel] if len(seen) > 1 else grid.width) for panel in seen]
    titles, size = _titles({panel: grid.meanings[panel] for panel in seen}, rooms)
    for title, middle in zip(titles, grid.panels.values(), strict=True):
        axes.text(middle, -3 / part.row, title, ha="center", va="bottom", fontsize=size)
    return meshes[0]


def name_rows(axes: Axes, tops: list[float], names: list[str], row: float) -> None:
    """Write the names of rows, `row` points high, to their left; only some of them if rows are low."""
    one_in = every(NAME_SIZE, row)
    axes.set_yticks([top + 0.5 for top in tops[::one_in]], names[::one_in], fontsize=NAME_SIZE)
    axes.tick_params(axis="y", pad=2)


def _titles(panels: dict[str, str], rooms: list[float]) -> tuple[list[str], float]:
    """As much of the panels' names and meanings as fits above each panel, and the font size."""
    names = [shortened(panel, 40) for panel in panels]
    full = [
        f"{name}: {meaning}" if meaning else name
        for name, meaning in zip(names, panels.values(), strict=True)
    ]
    for texts in (full, names):
        size = min(fitting_size(text, room, 8.0) for text, room in zip(texts, rooms, strict=True))
        if size >= MIN_TITLE:
            return texts, size
    return fitting_names(names, min(rooms), MIN_TITLE), MIN_TITLE


def _draw_section(axes: Axes, section: Section, part: Strip) -> QuadMesh:
    """Draw cells without gaps between them, with their numbers or, if they have none, their status."""
    impact, status = section.numbers("impact"), section.table("status").astype(str)
    level = section.numbers("level") if "level" in section.frame else impact
    lefts, tops = section.lefts, section.tops
    mesh = draw_cells(axes, level, lefts, tops, min(part.column, part.row))
    hatch_cells(axes, np.isin(status, UNCLEAR), lefts, tops)
    hatch_cells(axes, status == UNTESTED, lefts, tops, "....")
    write_numbers(axes, impact, lefts, tops, part.column, part.row, level)
    for (row, column), word in np.ndenumerate(status):
        corner = (lefts[column], tops[row])
        if word == "None":  # the map has no such cell
            axes.add_patch(Rectangle(corner, 1, 1, color="white"))
        elif word in WITHOUT_NUMBER:
            size = fitting_size(word, part.column - 2, min(7.0, part.row / LINE))
            short = size or min(7.0, part.row / LINE, part.column)
            words: dict[str, Any] = {"ha": "center", "va": "center", "color": palette.MUTED}
            axes.text(corner[0] + 0.5, corner[1] + 0.5, word if size else "–", fontsize=short, **words)
    return mesh


def _mark_planted(axes: Axes, frame: pd.DataFrame, grid: Grid) -> None:
    planted = frame[frame["planted"]] if "planted" in frame else frame.iloc[:0]
    for cell in planted.itertuples():
        left, top = grid.corner(cell)
        corner = (left + 0.04, top + 0.06)
        axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=palette.PLANTED, linewidth=1.2))
