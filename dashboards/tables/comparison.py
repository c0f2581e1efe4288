"""Compare a patching map with another study's, or with a paper's published impacts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from analyses.patching.published_map import load_published_map
from analyses.statistics import MIN_CELLS
from cache.wording import counted
from dashboards.tables.patching import cells_frame
from workbench.engine.sites import block_number
from workbench.studies.study import Study

VALUES = ["impact", "impact_lo", "impact_hi", "status"]
SIDES = ("left", "right")


@dataclass(frozen=True)
class Map:
    """One map to compare: its name, its cells (concept, row, `VALUES`), and the number of blocks of its network."""

    name: str
    cells: pd.DataFrame
    n_blocks: int | None

    @property
    def concepts(self) -> list[str]:
        """Its concepts, in order."""
        return list(dict.fromkeys(self.cells["concept"]))

    @property
    def rows(self) -> list[str]:
        """Its rows, in order."""
        return list(dict.fromkeys(self.cells["row"]))


@dataclass(frozen=True)
class Comparison:
    """Two maps of the same question on their common concepts.

    `frame` has one row for each cell of either map: side ("left", "right"), map, concept, row, block, impact with its
    interval, status. `notes` are sentences about what differs or cannot be compared. `matched` has one row for each
    cell with a number in both maps (impact_left, impact_right and their intervals); it is empty if rows do not
    correspond. `means` are the mean impacts over the common concepts of single blocks, as a set of blocks repeats the
    impacts of its blocks, or of all rows if none is a single block; `spearman` is their rank correlation, NaN if
    undefined, and `tops` the `top` rows of each side.
    """

    names: tuple[str, str]
    frame: pd.DataFrame
    matched: pd.DataFrame
    notes: list[str]
    means: pd.DataFrame
    spearman: float
    tops: tuple[list[str], list[str]]

    @property
    def leaves_out_sets(self) -> bool:
        """Whether `means` lack rows of `matched`."""
        return len(self.means) < self.matched["row"].nunique()

    @property
    def overlap(self) -> list[str]:
        """The rows that are among the top ones on both sides."""
        return [row for row in self.tops[0] if row in self.tops[1]]


def compare_maps(left: Map, right: Map, top: int, notes: list[str]) -> Comparison:
    """Compare two maps; `notes` are added to those of the comparison."""
    names = (
        (left.name, right.name)
        if left.name != right.name
        else (f"{left.name} (this)", f"{right.name} (other)")
    )
    common = [concept for concept in left.concepts if concept in right.concepts]
    differences = [*_concept_notes(left, right, common), *_row_notes(left, right)]
    comparable = bool(common) and _same_rows(left, right)
    parts = [
        one.cells[one.cells["concept"].isin(common)].assign(side=side, map=name)
        for side, name, one in zip(SIDES, names, (left, right), strict=True)
    ]
    parts = [
        part.sort_values("concept", key=lambda names: names.map(common.index), kind="stable")
        for part in parts
    ]
    frame = pd.concat(parts, ignore_index=True)[["side", "map", "concept", "row", "block", *VALUES]]
    matched = _matched(frame) if comparable else _matched(frame.iloc[:0])
    means = row_means(matched)
    varied = len(means) >= MIN_CELLS and (means.nunique() > 1).all()
    rho = float(means.corr(method="spearman").iloc[0, 1]) if varied else float("nan")
    tops = tuple(means[f"impact_{side}"].nlargest(top).index.tolist() for side in SIDES)
    return Comparison(names, frame, matched, [*differences, *notes], means, rho, (tops[0], tops[1]))


def row_means(matched: pd.DataFrame) -> pd.DataFrame:
    """Mean impacts over concepts, one row per single block, or per map row if no row is a single block."""
    single = matched[matched["block"] >= 0]
    means = (matched if single.empty else single).groupby("row", sort=False)
    return means[["impact_left", "impact_right"]].mean()


def _matched(frame: pd.DataFrame) -> pd.DataFrame:
    sides = [
        frame[frame["side"] == side].drop(columns=["side", "map", "status"]).dropna(subset="impact")
        for side in SIDES
    ]
    right = sides[1].drop(columns="block")
    return sides[0].merge(right, on=["concept", "row"], suffixes=("_left", "_right"))


def _concept_notes(left: Map, right: Map, common: list[str]) -> list[str]:
    if not common:
        return [
            f"Nothing can be compared: {left.name} has the concepts {', '.join(left.concepts)}, "
            f"{right.name} has {', '.join(right.concepts)}, with none in common."
        ]
    only = [
        f"Only {one.name} has {', '.join(concept for concept in one.concepts if concept not in common)}."
        for one in (left, right)
        if set(one.concepts) - set(common)
    ]
    return [f"Compared on {', '.join(common)}. {' '.join(only)}".strip()] if only else []


def _row_notes(left: Map, right: Map) -> list[str]:
    if left.n_blocks is not None and right.n_blocks is not None and left.n_blocks != right.n_blocks:
        return [
            f"Blocks cannot be compared one by one: {left.name} has {left.n_blocks} blocks and {right.name} has "
            f"{right.n_blocks}, so their blocks do not correspond. The maps are only shown side by side."
        ]
    common = set(left.rows) & set(right.rows)
    if not common:
        return ["The maps have no rows in common, so cells cannot be compared one by one."]
    missing = [
        f"Only {one.name} has {', '.join(row for row in one.rows if row not in common)}."
        for one in (left, right)
        if set(one.rows) - common
    ]
    if not missing:
        return []
    single = set(left.cells.loc[left.cells["block"] >= 0, "row"]) & common
    of_these = f", {counted(len(single), 'single block')} among them" if 0 < len(single) < len(common) else ""
    return [f"Compared on {counted(len(common), 'row')} that both have{of_these}. {' '.join(missing)}"]


def _same_rows(left: Map, right: Map) -> bool:
    counts = {left.n_blocks, right.n_blocks} - {None}
    return len(counts) <= 1 and bool(set(left.rows) & set(right.rows))


def study_map(study: Study, result: xr.Dataset, column: str, scorer: str) -> Map:
    """The cells of one column of a study's patching result, by one scorer."""
    cells = cells_frame(result, scorer)
    cells = cells[(cells["group"] == "cell") & (cells["column"] == column)]
    traced = [block_number(site.partition(".")[0]) for site in study.spec.sites]
    return _map(study.path.resolve().name, cells, [block for block in traced if block is not None])


def imported_map(study: Study, model: str) -> Map:
    """The study's published map of a model.

    Raises:
        UserError: the study has none of that model.
    """
    result = load_published_map(study, model)
    impacts = result["impact"].to_dataframe(dim_order=["concept", "block"]).reset_index()
    return published_map(f"published, {model}", impacts)


def published_map(name: str, impacts: pd.DataFrame) -> Map:
    """A map of published impacts (columns concept, block, impact)."""
    impacts = impacts.rename(columns={"block": "row"})
    status = np.where(impacts["impact"].isna(), "no score", "clear")
    numbers = [block_number(str(row)) for row in impacts["row"]]
    blocks = [-1 if number is None else number for number in numbers]
    cells = impacts.assign(impact_lo=np.nan, impact_hi=np.nan, status=status, block=blocks)
    return _map(name, cells, [])


def _map(name: str, cells: pd.DataFrame, others: list[int]) -> Map:
    """A map of these cells; `others` are further blocks that its network is known to have."""
    blocks = [int(block) for block in cells["block"] if block >= 0]
    n_blocks = 1 + max([*blocks, *others]) if blocks else None
    return Map(name, cells[["concept", "row", "block", *VALUES]], n_blocks)
