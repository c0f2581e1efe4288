"""The patching map on paper, and what one cell moves in each pair."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dashboards.drawing import palette
from dashboards.drawing.paper import POINTS, Width, empty_figure, new_figure
from dashboards.drawing.paper_maps import draw_map, map_height, strips
from dashboards.names import shortened
from dashboards.tables.patching import pair_notes


def patching_map(frame: pd.DataFrame, width: Width) -> Figure:
    """Heatmap of impact from `patching_frame`; hatched where not significant or inside the null band.

    Where no p-value can be significant, cells are dotted, and a line below the map says why.
    """
    parts, notes = strips(frame, POINTS[width]), pair_notes(frame)
    figure = empty_figure(width, map_height(parts, notes, POINTS[width]))
    draw_map(figure, parts, notes)
    return figure


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
    axes.set_title(shortened(f"{frame['concept'].iloc[0]}, {frame['arm'].iloc[0]}", 48))
    return figure
