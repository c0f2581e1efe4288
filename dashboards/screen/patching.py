"""The patching map on screen."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards import palette
from dashboards.screen.style import color_axis, hatch, outline, selection, style

ROW_PIXELS = 32
GAP = 0.5
HOVER = "<b>%{customdata[0]} · patch %{customdata[1]}</b><br>%{customdata[2]}<extra></extra>"


def patching_map(frame: pd.DataFrame, selected: tuple[str, str] | None = None) -> go.Figure:
    """Heatmap of impact, arms down and concepts across, from `patching_frame`.

    Cells whose interval contains zero are hatched, undefined ones are grey and say so, planted ones (column
    `planted`) and the `selected` cell (concept, arm) are outlined.
    """
    concepts = list(dict.fromkeys(frame["concept"]))
    frame = frame.assign(hover=[_hover(row) for row in frame.to_dict("records")])
    figure = go.Figure()
    tops = _tops(frame)
    for _, section in frame.groupby("group", sort=False):
        _add_section(figure, section, concepts, [tops[arm] for arm in dict.fromkeys(section["arm"])])
    bottom = max(tops.values()) + 1
    figure.update_xaxes(
        side="top",
        tickvals=[index + 0.5 for index in range(len(concepts))],
        ticktext=concepts,
        showgrid=False,
    )
    figure.update_xaxes(range=[0, len(concepts)], fixedrange=True, tickfont={"size": 13})
    figure.update_yaxes(tickvals=[top + 0.5 for top in tops.values()], ticktext=list(tops), showgrid=False)
    figure.update_yaxes(range=[bottom, 0], fixedrange=True)
    figure.update_layout(shapes=_outlines(frame, concepts, tops, selected))
    return style(
        figure, height=int(bottom * ROW_PIXELS) + 60, clickmode="event", coloraxis=color_axis("impact")
    )


def cell_at(frame: pd.DataFrame, x: float, y: float) -> tuple[str, str] | None:
    """The cell (concept, arm) at a place of the map in axis units; None beside the cells.

    A click on a heatmap tells its place and nothing else.
    """
    concepts = list(dict.fromkeys(frame["concept"]))
    arms = [arm for arm, top in _tops(frame).items() if top <= y < top + 1]
    return (concepts[int(x)], arms[0]) if arms and 0 <= x < len(concepts) else None


def _tops(frame: pd.DataFrame) -> dict[str, float]:
    """Top edge of each arm's row: blocks first, a gap, then the sets."""
    first = frame.drop_duplicates("arm")
    has_blocks = (first["group"] == "block").any()
    shift = [GAP if has_blocks and group == "set" else 0.0 for group in first["group"]]
    return {arm: row + gap for row, (arm, gap) in enumerate(zip(first["arm"], shift, strict=True))}


def _add_section(figure: go.Figure, frame: pd.DataFrame, concepts: list[str], tops: list[float]) -> None:
    def table(column: str) -> np.ndarray:
        grid = frame.pivot(index="arm", columns="concept", values=column)
        return grid.loc[list(dict.fromkeys(frame["arm"])), concepts].to_numpy()

    edges = {"x": list(range(len(concepts) + 1)), "y": [*tops, tops[-1] + 1]}
    status, impact = table("status"), table("impact").astype(float)
    customdata = np.stack([table("concept"), table("arm"), table("hover")], axis=-1)
    numbers = np.vectorize(lambda value: "" if np.isnan(value) else f"{value:z.2f}", otypes=[object])(impact)
    words = np.where(np.isnan(impact), status, "")
    common = {
        **edges,
        "customdata": customdata,
        "hovertemplate": HOVER,
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
    }
    figure.add_heatmap(
        z=impact,
        coloraxis="coloraxis",
        text=numbers,
        texttemplate="%{text}",
        textfont={"size": 13 if len(concepts) <= 8 else 11},
        **common,
    )
    figure.add_heatmap(
        z=np.where(np.isnan(impact), 0.0, np.nan),
        colorscale=[[0, palette.UNDEFINED], [1, palette.UNDEFINED]],
        showscale=False,
        text=words,
        texttemplate="%{text}",
        textfont={"size": 11 if len(concepts) <= 6 else 9, "color": palette.MUTED},
        **common,
    )
    lefts = list(map(float, range(len(concepts))))
    figure.add_traces(hatch(status == "contains zero", impact, lefts, tops))


def _hover(row: dict[Hashable, Any]) -> str:
    interval = f"[{row['denominator_lo']:z.3f}, {row['denominator_hi']:z.3f}]"
    denominator = f"clean − corrupt score: {row['denominator']:z.3f} {interval}"
    count = f"n = {row['n']}"
    if row["status"] == "undefined":
        return f"undefined: clean and corrupt do not differ clearly<br>{denominator}<br>{count}"
    if row["status"] == "no score":
        return f"no score: the scorer failed on this arm<br>{denominator}<br>{count}"
    planted = "<br>planted here" if row.get("planted") else ""
    impact = f"impact {row['impact']:z.3f}, 95 % interval [{row['impact_lo']:z.3f}, {row['impact_hi']:z.3f}]"
    return f"{impact}<br>{denominator}<br>{count}{planted}"


def _outlines(
    frame: pd.DataFrame, concepts: list[str], tops: dict[str, float], selected: tuple[str, str] | None
) -> list[dict[str, Any]]:
    planted = frame[frame["planted"]] if "planted" in frame else frame.iloc[:0]
    lefts = {concept: float(column) for column, concept in enumerate(concepts)}
    shapes = [outline(lefts[row.concept], tops[row.arm], palette.PLANTED) for row in planted.itertuples()]
    if selected is not None and selected[0] in concepts and selected[1] in tops:
        shapes += selection(lefts[selected[0]], tops[selected[1]])
    return shapes
