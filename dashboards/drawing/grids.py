"""Layout of a patching map, shared by screen and paper: panels side by side, null arms below."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

PANEL_GAP = 0.5
NULL_GAP = 0.5
GROUPS = ("cell", "null")
MEANINGS = {"sufficiency": "fraction restored", "necessity": "fraction lost"}


@dataclass(frozen=True)
class Section:
    """A block of cells without gaps: the cells of one panel and group, with their left and top edges."""

    panel: str
    frame: pd.DataFrame
    across: list[str]
    labels: list[str]
    lefts: list[float]
    tops: list[float]

    def table(self, column: str) -> np.ndarray:
        """A column of the section's frame as (row, column); None where there is no cell or no value."""
        grid = self.frame.astype(object).pivot(index="label", columns="across", values=column)
        cells = np.array(grid.reindex(index=self.labels, columns=self.across), dtype=object)
        cells[pd.isna(cells)] = None  # pandas' own `where` leaves NaN
        return cells

    def numbers(self, column: str) -> np.ndarray:
        """A numeric column as (row, column); NaN where there is no cell or no number."""
        return self.table(column).astype(float)


@dataclass(frozen=True)
class Grid:
    """A map's sections, its rows' top edges by label, and its columns' left edges by (panel, across).

    `nulls` is the number of null arms of which each null row shows the largest. `meanings` explains each panel's
    direction ("" for panels not named by direction).
    """

    sections: list[Section]
    tops: dict[str, float]
    lefts: dict[tuple[str, str], float]
    nulls: dict[str, int]
    meanings: dict[str, str]

    @property
    def width(self) -> float:
        """Right edge of the map, in cells."""
        return max(self.lefts.values()) + 1

    @property
    def height(self) -> float:
        """Bottom edge of the map, in cells."""
        return max(self.tops.values()) + 1

    @property
    def panels(self) -> dict[str, float]:
        """Centre of each panel, by name."""
        names = dict.fromkeys(panel for panel, _ in self.lefts)
        places = {name: [left for (panel, _), left in self.lefts.items() if panel == name] for name in names}
        return {name: (min(lefts) + max(lefts) + 1) / 2 for name, lefts in places.items()}

    def corner(self, cell: Any) -> tuple[float, float]:
        """Left and top edge of the cell in a row of the map's frame."""
        return self.lefts[cell.panel, cell.across], self.tops[cell.label]


def lay_out(frame: pd.DataFrame) -> Grid:
    """Lay out the cells of `map_frame`: panels in order, cells at the top (blocks first), null arms below."""
    cells, nulls = (frame[frame["group"] == group] for group in GROUPS)
    blocks = dict(zip(cells["label"], cells["block"], strict=True))
    labels = {
        "cell": sorted(blocks, key=lambda label: (blocks[label] < 0, max(blocks[label], 0))),
        "null": list(dict.fromkeys(nulls["label"])),
    }
    tops: dict[str, float] = {}
    for group, names in labels.items():
        start = max(tops.values(), default=-1.0) + 1 + (NULL_GAP if tops and group == "null" else 0)
        tops.update({name: start + row for row, name in enumerate(names)})
    lefts: dict[tuple[str, str], float] = {}
    for panel in dict.fromkeys(frame["panel"]):
        start = max(lefts.values(), default=-1.0 - PANEL_GAP) + 1 + PANEL_GAP
        columns = dict.fromkeys(frame.loc[frame["panel"] == panel, "across"])
        lefts.update({(panel, name): start + column for column, name in enumerate(columns)})
    sections = [
        _section(part, str(panel), labels[str(group)], tops, lefts)
        for (panel, group), part in frame.groupby(["panel", "group"], sort=False)
    ]
    counts = dict(zip(nulls["label"], nulls["largest_of"], strict=True))
    meanings = {
        str(panel): _meaning(str(panel), part.iloc[0]) for panel, part in frame.groupby("panel", sort=False)
    }
    return Grid(sections, tops, lefts, counts, meanings)


def _meaning(panel: str, cell: pd.Series) -> str:
    named = (cell["direction"], f"{cell['column']}, {cell['direction']}")
    return MEANINGS.get(cell["direction"], "") if panel in named else ""


def cell_at(frame: pd.DataFrame, x: float, y: float) -> tuple[str, str] | None:
    """The cell (concept, arm) at a position on the map in axis units; None outside the cells.

    A click on a heatmap reports only its position.
    """
    grid = lay_out(frame)
    for cell in frame.itertuples():
        left, top = grid.corner(cell)
        if left <= x < left + 1 and top <= y < top + 1:
            return str(cell.concept), str(cell.arm)
    return None


def _section(
    part: pd.DataFrame,
    panel: str,
    labels: list[str],
    tops: dict[str, float],
    lefts: dict[tuple[str, str], float],
) -> Section:
    # Not every panel has every row and column; a section includes them all, to have no gaps.
    across = [name for owner, name in lefts if owner == panel]
    places = [lefts[panel, name] for name in across]
    return Section(panel, part, across, labels, places, [tops[label] for label in labels])


def as_map(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert the frame of a comparison for `lay_out`: one panel per map, concepts across."""
    return frame.assign(
        panel=frame["map"],
        across=frame["concept"],
        label=frame["row"],
        group="cell",
        arm=frame["row"],
        column="",
        direction="",
        largest_of=1,
    )
