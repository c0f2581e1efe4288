"""The patching map on paper."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dashboards import palette
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
GAP = 0.4
SIDE_INCHES = 1.1  # arm names and colour bar


def patching_map(frame: pd.DataFrame, width: Width) -> Figure:
    """Heatmap of impact, arms down and concepts across, from `patching_frame`; hatched where the interval has zero."""
    concepts = list(dict.fromkeys(frame["concept"]))
    groups = [group for group in ("block", "set") if (frame["group"] == group).any()]
    arms = {group: list(dict.fromkeys(frame.loc[frame["group"] == group, "arm"])) for group in groups}
    rows = sum(map(len, arms.values())) + GAP * (len(groups) - 1)
    figure = new_figure(width, ROW_INCHES * rows + 0.75)
    axes = figure.subplots()
    lefts, tops = list(map(float, range(len(concepts)))), {}
    start = 0.0
    for group in groups:
        tops.update({arm: start + index for index, arm in enumerate(arms[group])})
        mesh = _draw_section(
            axes, frame[frame["group"] == group], concepts, [tops[arm] for arm in arms[group]], width
        )
        start += len(arms[group]) + GAP
    _mark_planted(axes, frame, concepts, tops)
    axes.set_xlim(0, len(concepts))
    axes.set_ylim(rows, 0)
    axes.set_xticks([left + 0.5 for left in lefts], concepts, rotation=0 if len(concepts) <= 5 else 45)
    axes.xaxis.tick_top()
    axes.set_yticks([top + 0.5 for top in tops.values()], list(tops))
    bar = figure.colorbar(mesh, ax=axes, label="impact", aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    return figure


def _draw_section(
    axes: Axes, frame: pd.DataFrame, concepts: list[str], tops: list[float], width: Width
) -> QuadMesh:
    arms = list(dict.fromkeys(frame["arm"]))
    impact = frame.pivot(index="arm", columns="concept", values="impact").loc[arms, concepts].to_numpy(float)
    status = frame.pivot(index="arm", columns="concept", values="status").loc[arms, concepts].to_numpy()
    lefts = list(map(float, range(len(concepts))))
    cell_points = (INCHES[width] - SIDE_INCHES) * POINTS_PER_INCH / len(concepts)
    mesh = draw_cells(axes, impact, lefts, tops)
    hatch_cells(axes, status == "contains zero", lefts, tops)
    write_numbers(axes, impact, lefts, tops, cell_points)
    for (row, column), words in np.ndenumerate(status):
        if np.isnan(impact[row, column]):
            place = (lefts[column] + 0.5, tops[row] + 0.5)
            size = min(7.0, cell_points / 5.5)
            axes.text(*place, words, ha="center", va="center", fontsize=size, color=palette.MUTED)
    return mesh


def _mark_planted(axes: Axes, frame: pd.DataFrame, concepts: list[str], tops: dict[str, float]) -> None:
    planted = frame[frame["planted"]] if "planted" in frame else frame.iloc[:0]
    for cell in planted.itertuples():
        corner = (concepts.index(cell.concept) + 0.04, tops[cell.arm] + 0.06)
        axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=palette.PLANTED, linewidth=1.2))
