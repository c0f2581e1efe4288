"""Two patching maps beside each other on paper, and their impacts against each other."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dashboards.comparison import Comparison
from dashboards.drawing import palette
from dashboards.drawing.grids import as_map
from dashboards.drawing.measure import fitting_names
from dashboards.drawing.paper import POINTS, Width, empty_figure, place_axes
from dashboards.drawing.paper_maps import draw_map, map_height, strips
from dashboards.names import shortened

SCATTER = 150.0  # points, and below it its axis' numbers and name
BELOW = 32.0
LEFT = 44.0
LEGEND = 90.0
COLOURS = (palette.SEQUENTIAL[5], palette.PLANTED, "#2b8a3e", "#862e9c", "#e67700", palette.INK)


def comparison(compared: Comparison, width: Width) -> Figure:
    """The two maps of a comparison, and below them the cells that both have against each other."""
    parts = strips(as_map(compared.frame), POINTS[width])
    height = map_height(parts, [], POINTS[width])
    if compared.matched.empty:
        figure = empty_figure(width, height)
        draw_map(figure, parts, [])
        return figure
    figure = empty_figure(width, height + 10 + SCATTER + BELOW)
    draw_map(figure, parts, [])
    wide = min(POINTS[width] - LEFT - LEGEND - 8, 1.6 * SCATTER)
    _scatter(place_axes(figure, LEFT, height + 10, wide, SCATTER), compared)
    return figure


def _scatter(axes: Axes, compared: Comparison) -> None:
    axes.axline((0, 0), slope=1, color=palette.MUTED, linestyle=":", linewidth=0.8)
    groups = list(compared.matched.groupby("concept", sort=False))
    told = len(groups) <= len(COLOURS)  # with more, the same colour would stand for several
    for index, (concept, part) in enumerate(groups):
        bars = []
        for side in ("left", "right"):
            impact = part[f"impact_{side}"]
            bars.append(
                [(impact - part[f"impact_lo_{side}"]).clip(0), (part[f"impact_hi_{side}"] - impact).clip(0)]
            )
        axes.errorbar(
            part["impact_left"],
            part["impact_right"],
            xerr=bars[0],
            yerr=bars[1],
            fmt="o",
            markersize=2.5,
            elinewidth=0.6,
            color=COLOURS[index] if told else COLOURS[0],
            label=fitting_names([str(concept)], LEGEND - 20, 7.0)[0],
        )
    for name, axis in zip(compared.names, (axes.xaxis, axes.yaxis), strict=True):
        axis.set_label_text(fitting_names([f"impact, {shortened(name, 60)}"], SCATTER, 8.0)[0])
    if told:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), handlelength=1, fontsize=7)
