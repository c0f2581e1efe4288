"""Style shared by all paper figures."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from dashboards.drawing import palette
from dashboards.drawing.measure import LINE, fitting_size
from dashboards.numbers import fixed

Width = Literal["single", "double"]
INCHES = {"single": 3.4, "double": 7.0}
POINTS = {width: 72 * inches for width, inches in INCHES.items()}
CMAP = LinearSegmentedColormap.from_list("sequential", palette.SEQUENTIAL).with_extremes(
    bad=palette.UNDEFINED
)
NARROW = 6.0  # points
# parse_math: a dollar in a user's text does not start a formula.
# 42: TrueType, as journals require; "none": SVG keeps text as text; the salt makes SVG ids reproducible.
PAPER_STYLE = {
    "text.parse_math": False,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "audio-diffusion-workbench",
    "figure.dpi": 300,
    "savefig.dpi": 300,
}


def note_in_axes(axes: Axes, words: str, size: float) -> None:
    """Say in the middle of empty axes why they are empty; `size` in points."""
    where = axes.transAxes
    axes.text(0.5, 0.5, words, fontsize=size, color=palette.MUTED, ha="center", va="center", transform=where)


def new_figure(width: Width, height: float) -> Figure:
    """An empty figure of a given column width; `height` in inches."""
    return Figure(figsize=(INCHES[width], height), layout="constrained")


def empty_figure(width: Width, height: float) -> Figure:
    """An empty figure of a given column width for `place_axes`; `height` in points."""
    return Figure(figsize=(INCHES[width], height / 72))


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a position in the figure; in points, `top` from the figure's upper edge."""
    across, down = 72 * figure.get_figwidth(), 72 * figure.get_figheight()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def draw_cells(
    axes: Axes,
    values: Float[np.ndarray, "row column"],
    lefts: list[float],
    tops: list[float],
    cell: float,
) -> QuadMesh:
    """Draw unit cells of a map, coloured from 0 to 1, with their top left corners at (`lefts`, `tops`).

    `cell` is their shorter side in points: narrow cells get no white edges, which would cover them.
    """
    apart = cell >= NARROW
    mesh = axes.pcolormesh(
        [*lefts, lefts[-1] + 1],
        [*tops, tops[-1] + 1],
        np.ma.masked_invalid(values),
        cmap=CMAP,
        vmin=0,
        vmax=1,
        edgecolors="white" if apart else "none",
        linewidth=0.6 if apart else 0.0,
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    return mesh


def write_numbers(
    axes: Axes,
    values: Float[np.ndarray, "row column"],
    lefts: list[float],
    tops: list[float],
    column: float,
    row: float,
    levels: Float[np.ndarray, "row column"] | None = None,
) -> None:
    """Write each value into its cell, `column` points wide and `row` high, unless it would be unreadable.

    The cells are coloured by the values, or by `levels`.
    """
    most = fitting_size("−0.00", column - 2, min(7.5, row / LINE - 1))
    if not most:
        return
    levels = values if levels is None else levels
    dark = palette.is_dark(levels)
    for place, value in np.ndenumerate(values):
        text = fixed(value)
        size = 0.0 if np.isnan(value) else fitting_size(text, column - 2, most)
        if size:
            ground = {"facecolor": CMAP(float(np.clip(levels[place], 0, 1))), "edgecolor": "none", "pad": 0.4}
            axes.text(
                lefts[place[1]] + 0.5,
                tops[place[0]] + 0.5,
                text,
                ha="center",
                va="center",
                fontsize=size,
                color=palette.ON_DARK if dark[place] else palette.ON_LIGHT,
                bbox=ground,  # keeps hatching away from the digits
            )


def hatch_cells(
    axes: Axes,
    unclear: Bool[np.ndarray, "row column"],
    lefts: list[float],
    tops: list[float],
    pattern: str = "////",
) -> None:
    """Hatch the unclear cells of a map as one shape."""
    corners = [(lefts[column], tops[row]) for row, column in zip(*np.nonzero(unclear), strict=True)]
    if corners:
        squares = [
            Path([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)], closed=True) for x, y in corners
        ]
        shape = Path.make_compound_path(*squares)
        # Not add_patch, which slowly finds the limits of the shape: maps set their own.
        axes.add_artist(PathPatch(shape, fill=False, hatch=pattern, edgecolor=palette.RULE, linewidth=0))
