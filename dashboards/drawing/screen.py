"""Style shared by all Plotly figures."""

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from dashboards.drawing import palette
from dashboards.names import in_two_lines, shortened
from dashboards.numbers import fixed

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
COLORSCALE = [
    [index / (len(palette.SEQUENTIAL) - 1), colour] for index, colour in enumerate(palette.SEQUENTIAL)
]
BAR_PIXELS = 320
LONGEST_NAME = 44  # characters beside or below a map; hovering shows the whole name
LEGEND_LINE = 22  # pixels of a line of a legend below a plot
MOST_LEGEND_LINES = 8  # further ones are scrolled to
BELOW_AXIS = 44  # pixels of an axis' numbers and title
CORNERS = (0.2, 0.4, 0.6, 1.4, 1.6, 1.8)
# The modebar offers zooming only: export has its own button, and nothing is sent anywhere.
GRAPH_CONFIG = {
    "showSendToCloud": False,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["toImage", "select2d", "lasso2d"],
}


def plain(text: object, most: int = 200) -> str:
    """Escape text so that Plotly shows it literally, on one line, shortened to `most` characters.

    Otherwise Plotly reads `<b>` and `&amp;` as HTML, and `%{x}` in hover templates as a value of the point.
    """
    return html.escape(shortened(str(text), most), quote=False).replace("{", "&#123;")


def plain_lines(text: object, most: int) -> str:
    """As `plain`, of at most `most` characters in two lines if it is long."""
    return "<br>".join(plain(line) for line in in_two_lines(str(text), most))


AXIS = {"automargin": True, "zeroline": False, "ticklabelstandoff": 4}
"""What all axes have in common."""


def style(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Give `figure` the shared fonts, margins and background; `height` in pixels."""
    figure.update_layout(common_layout(height), **layout)
    figure.update_xaxes(AXIS)
    figure.update_yaxes(AXIS)
    return figure


def common_layout(height: int) -> dict[str, Any]:
    """Fonts, margins and background of a figure; `height` in pixels.

    A figure made from one whole layout is made in a fifth of the time that changing it part by part takes.
    """
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "font": {"family": FONT, "size": 12, "color": palette.INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": palette.RULE,
            "font": {"size": 12, "color": palette.INK, "family": FONT},
        },
        "showlegend": False,
        "uirevision": "keep",
    }


def legend_below(names: int) -> tuple[int, dict[str, Any]]:
    """Room for a legend of so many `names` below a plot, in pixels, and the layout that puts it there.

    A legend beside or above a plot takes the plot's own room. A long one scrolls, as on a narrow screen.
    """
    lines = min(MOST_LEGEND_LINES, -(-names // 2))
    room = LEGEND_LINE * lines + 8
    legend = {
        "orientation": "h",
        "yref": "container",
        "y": 0,
        "yanchor": "bottom",
        "x": 0,
        "maxheight": room,
        "itemsizing": "constant",
    }
    return room, {"legend": legend, "showlegend": True, "margin": {"b": room + BELOW_AXIS}}


def color_axis(title: str, height: int | None = None) -> dict[str, Any]:
    """The shared colours of a map from 0 to 1, with a slim bar; values outside get the end colours.

    With the map's `height` in pixels, the bar of a tall map stays short and at the top.
    """
    bar = {
        "title": {"text": title, "side": "right"},
        "thickness": 10,
        "outlinewidth": 0,
        "tickvals": [0, 0.25, 0.5, 0.75, 1],
    }
    if height is not None and height > BAR_PIXELS:
        bar |= {"lenmode": "pixels", "len": BAR_PIXELS, "y": 1, "yanchor": "top"}
    return {"colorscale": COLORSCALE, "cmin": 0, "cmax": 1, "colorbar": bar}


def cell_numbers(
    levels: Float[np.ndarray, "row column"],
    lefts: list[float],
    tops: list[float],
    size: int,
    values: Float[np.ndarray, "row column"] | None = None,
) -> go.Scatter:
    """The numbers in the cells of a heatmap, black or white; see `hatch`. Plotly's own are grey on light cells.

    The numbers are the levels unless `values` are given.
    """
    shown = levels if values is None else values
    dark, places = palette.is_dark(levels), list(zip(*np.nonzero(~np.isnan(levels)), strict=True))
    return go.Scatter(
        x=[lefts[column] + 0.5 for _, column in places],
        y=[tops[row] + 0.5 for row, _ in places],
        text=[fixed(shown[place]) for place in places],
        mode="text",
        textfont={
            "size": size,
            "color": [palette.ON_DARK if dark[place] else palette.ON_LIGHT for place in places],
        },
        hoverinfo="skip",
        showlegend=False,
    )


def hatch(
    unclear: Bool[np.ndarray, "row column"],
    levels: Float[np.ndarray, "row column"],
    lefts: list[float],
    tops: list[float],
    sparse: bool = False,
) -> list[go.Scatter]:
    """Diagonal lines over the unclear cells of a heatmap: a trace for light cells and one for dark ones.

    `levels` are the cells' values (0 lightest, 1 darkest), `lefts` and `tops` their edges, 1 apart. The lines leave
    the middle of the cell free for its number; with `sparse`, there is no number and one line per cell.
    """
    dark = palette.is_dark(levels)
    inks = ((unclear & ~dark, "rgba(60, 70, 82, 0.40)"), (unclear & dark, "rgba(255, 255, 255, 0.55)"))
    return [_lines(cells, ink, lefts, tops, (1.0,) if sparse else CORNERS) for cells, ink in inks]


def dots(
    cells: Bool[np.ndarray, "row column"],
    levels: Float[np.ndarray, "row column"],
    lefts: list[float],
    tops: list[float],
) -> go.Scatter:
    """Dots in the corners of some cells of a heatmap; see `hatch`."""
    is_dark = palette.is_dark(levels)
    places = [
        (lefts[column] + x, tops[row] + y, bool(is_dark[row, column]))
        for row, column in zip(*np.nonzero(cells), strict=True)
        for x in (0.12, 0.88)
        for y in (0.2, 0.8)
    ]
    xs, ys, dark = zip(*places, strict=True) if places else ((), (), ())
    marker = {"size": 3, "color": np.where(dark, "rgba(255, 255, 255, 0.8)", "rgba(60, 70, 82, 0.7)")}
    return go.Scatter(x=xs, y=ys, mode="markers", marker=marker, hoverinfo="skip", showlegend=False)


def _lines(
    cells: Bool[np.ndarray, "row column"],
    ink: str,
    lefts: list[float],
    tops: list[float],
    offsets: tuple[float, ...],
) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for row, column in zip(*np.nonzero(cells), strict=True):
        left, top = lefts[column], tops[row]
        for offset in offsets:  # the line x + y = offset, in the cell's own coordinates
            xs += [left + max(0.0, offset - 1), left + min(1.0, offset), None]
            ys += [top + min(1.0, offset), top + max(0.0, offset - 1), None]
    line = {"color": ink, "width": 1}
    return go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def note_inside(figure: go.Figure, reason: str, **at: Any) -> None:
    """Say in the middle of an empty panel (`at` row and column) why it is empty."""
    figure.add_annotation(
        x=0.5,
        y=0.5,
        xref="x domain",
        yref="y domain",
        text=plain(reason).replace(": ", ":<br>", 1).replace(" the real", "<br>the real"),
        showarrow=False,
        font={"size": 11, "color": palette.MUTED},
        **at,
    )


def outline(left: float, top: float, colour: str, width: float = 2.5) -> dict[str, Any]:
    """A rectangle just inside the cell whose top left corner is (`left`, `top`)."""
    corners = {"x0": left + 0.05, "x1": left + 0.95, "y0": top + 0.07, "y1": top + 0.93}
    return {"type": "rect", **corners, "line": {"color": colour, "width": width}, "layer": "above"}


def selection(left: float, top: float) -> list[dict[str, Any]]:
    """A dark frame on a white one around a cell, visible on every colour."""
    corners = {"x0": left, "x1": left + 1, "y0": top, "y1": top + 1, "type": "rect", "layer": "above"}
    return [
        {**corners, "line": {"color": colour, "width": width}}
        for colour, width in (("white", 6), (palette.INK, 2.5))
    ]
