"""Two patching maps beside each other on paper, and their impacts against each other."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dashboards import palette
from dashboards.comparison import Comparison
from dashboards.grids import as_map, lay_out
from dashboards.paper.patching import draw_map, map_inches
from dashboards.paper.style import INCHES, Width, new_figure

SCATTER_INCHES = 2.6
COLOURS = (palette.SEQUENTIAL[5], palette.PLANTED, "#2b8a3e", "#862e9c", "#e67700", palette.INK)


def comparison(compared: Comparison, width: Width) -> Figure:
    """The two maps of a comparison, and below them the cells that both have against each other."""
    frame = as_map(compared.frame)
    height = map_inches(lay_out(frame), INCHES[width])
    if compared.matched.empty:
        figure = new_figure(width, height)
        draw_map(figure, figure.subplots(), frame, INCHES[width])
        return figure
    figure = new_figure(width, height + SCATTER_INCHES)
    above, below = figure.subplots(2, 1, height_ratios=[height, SCATTER_INCHES])
    draw_map(figure, above, frame, INCHES[width])
    _scatter(below, compared)
    return figure


def _scatter(axes: Axes, compared: Comparison) -> None:
    axes.axline((0, 0), slope=1, color=palette.MUTED, linestyle=":", linewidth=0.8)
    for index, (concept, part) in enumerate(compared.matched.groupby("concept", sort=False)):
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
            color=COLOURS[index % len(COLOURS)],
            label=str(concept),
        )
    axes.set_xlabel(f"impact, {compared.names[0]}")
    axes.set_ylabel(f"impact, {compared.names[1]}")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), handlelength=1)
