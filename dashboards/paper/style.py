"""The look that all paper figures share."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dashboards import palette

Width = Literal["single", "double"]
INCHES = {"single": 3.4, "double": 7.0}
POINTS_PER_INCH = 72
CMAP = LinearSegmentedColormap.from_list("sequential", palette.SEQUENTIAL).with_extremes(
    bad=palette.UNDEFINED
)
# 42: TrueType, which journals want; "none": SVG text stays text; the salt makes SVG ids the same every time.
PAPER_STYLE = {
    "font.family": "DejaVu Sans",
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


def new_figure(width: Width, height: float) -> Figure:
    """An empty figure of a column's width; `height` in inches."""
    return Figure(figsize=(INCHES[width], height), layout="constrained")


def draw_cells(
    axes: Axes,
    values: Float[np.ndarray, "row column"],
    lefts: list[float],
    tops: list[float],
) -> QuadMesh:
    """Draw unit cells of a map, coloured from 0 to 1, with their left top corners at (`lefts`, `tops`)."""
    mesh = axes.pcolormesh(
        [*lefts, lefts[-1] + 1],
        [*tops, tops[-1] + 1],
        np.ma.masked_invalid(values),
        cmap=CMAP,
        vmin=0,
        vmax=1,
        edgecolors="white",
        linewidth=0.6,
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
    cell_points: float,
) -> None:
    """Write each value into its cell, `cell_points` wide; nothing where the number would not be legible."""
    size = min(8.0, cell_points / 2.6)
    if size < 5:
        return
    dark = palette.is_dark(values)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            ground = {"facecolor": CMAP(float(np.clip(value, 0, 1))), "edgecolor": "none", "pad": 0.6}
            axes.text(
                lefts[column] + 0.5,
                tops[row] + 0.5,
                f"{value:z.2f}",
                ha="center",
                va="center",
                fontsize=size,
                color="white" if dark[row, column] else palette.INK,
                bbox=ground,  # keeps hatching away from the digits
            )


def hatch_cells(
    axes: Axes, unclear: Bool[np.ndarray, "row column"], lefts: list[float], tops: list[float]
) -> None:
    """Hatch the unclear cells of a map."""
    for row, column in zip(*np.nonzero(unclear), strict=True):
        axes.add_patch(
            Rectangle(
                (lefts[column], tops[row]),
                1,
                1,
                fill=False,
                hatch="////",
                edgecolor=palette.RULE,
                linewidth=0,
            )
        )
