"""Tables of a patching map and of the pairs behind its cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analyses.statistics import ALPHA, smallest_p, too_few_pairs
from cache.errors import UserError
from cache.wording import counted

ALL = "all"
DIRECTIONS = ("sufficiency", "necessity")
CELL_VALUES = ("impact", "impact_lo", "impact_hi")
TESTS = ("p", "p_adjusted")
TEXTS = ("clean_prompt", "corrupt_prompt", "clean_value", "corrupt_value", "text")
CONCEPT_VALUES = (
    "n",
    "n_pairs",
    "defined",
    "denominator",
    "denominator_lo",
    "denominator_hi",
    "stability",
    "stability_lo",
    "stability_hi",
    "null_lo",
    "null_hi",
)
AGREEMENT = ("agreement", "agreement_lo", "agreement_hi", "agreement_cells", "agreement_pairs")
SCREENED_OUT = "screened out"  # status of cells that a screening left out, so that they were not run
UNTESTED = "too few pairs"  # status of dotted cells: with so few pairs, no p-value can be significant
CLEAR = "clear"
UNCLEAR = ("not significant", "inside null band")  # statuses that are hatched


def scorers(result: xr.Dataset) -> list[str]:
    """The scorers of a patching result."""
    return [str(name) for name in result["scorer"].values]


def columns(result: xr.Dataset) -> list[str]:
    """The columns of a patching result's cells, in order."""
    of_cells = result["column"].values[result["role"].values == "cell"]
    return [str(name) for name in dict.fromkeys(of_cells)]


def default_columns(result: xr.Dataset) -> list[str]:
    """The columns that a map of all concepts shows by default: both directions, or the first column."""
    known = columns(result)
    return list(DIRECTIONS) if set(DIRECTIONS) <= set(known) else known[:1]


def default_concept(result: xr.Dataset) -> str:
    """The concept that a map shows by default: all if the question has few columns, otherwise the first one."""
    few = result.attrs["question"] == "blocks" or len(columns(result)) == 1
    return ALL if few else str(result["concept"].values[0])


def cells_frame(
    result: xr.Dataset, scorer: str = "", planted: dict[str, list[int]] | None = None
) -> pd.DataFrame:
    """One row for each cell and null arm (concept, arm) of a `patching` result by one scorer, the first by default.

    Columns: concept, arm, row, block (-1 if the row is not a single block), column, direction, group ("cell" or
    "null"), label and beside (its row and column on the map: a null arm is placed below the cells of the column that
    it is the null of), scorer, impact with its interval (NaN unless `status` implies a number), p, p_adjusted, n and
    n_pairs, defined, the denominator and the stability with their intervals, the null band, and status: "clear", "too
    few pairs" (for any p-value to be significant), "not significant" (p_adjusted above 0.05 or missing), "inside null
    band", "null arm" (not tested), "undefined" (denominator not above zero), "screened out" (not run) or
    "no score" (of the arm, or of any pair).
    With `planted` (concept -> block numbers), a column `planted` marks the cells of the blocks that the model's truth
    card lists for the concept.
    """
    name = choose("scorer", scorer, scorers(result))
    one = (
        result[[*CELL_VALUES, *TESTS, *CONCEPT_VALUES]].sel(scorer=name).drop_vars("scorer", errors="ignore")
    )
    # Without a screening every cell was run; one whose numbers became NaN has no audio either.
    no_audio = (result["audio"] == "").all(["pair", "seed"])
    one = one.assign(screened_out=no_audio & bool(result.attrs.get("screened")))
    one = one.isel(arm=np.flatnonzero(result["role"].values != "run"))
    frame = one.to_dataframe(dim_order=["concept", "arm"]).reset_index()
    frame["group"] = np.where(frame["role"] == "null", "null", "cell")
    frame["label"], frame["beside"] = zip(*_places(frame), strict=True)
    frame["scorer"] = name
    frame["defined"] = frame["defined"].astype(bool)
    frame.loc[~frame["defined"], [*CELL_VALUES, *TESTS]] = np.nan
    frame["status"] = _status(frame)
    names = ["concept", "arm", "row", "block", "column", "direction", "group", "label", "beside", "scorer"]
    frame = frame[[*names, *CELL_VALUES, *TESTS, *CONCEPT_VALUES, "status"]]
    frame = frame.sort_values("group", key=lambda group: group == "null", kind="stable")
    if planted is not None:
        frame["planted"] = [_is_planted(planted.get(row.concept, []), row) for row in frame.itertuples()]
    return frame.reset_index(drop=True)


def pairs_frame(result: xr.Dataset, concept: str, arm: str, scorer: str = "") -> pd.DataFrame:
    """One row for each pair and seed that was run for the cell (concept, arm).

    Columns: pair, seed, noise_seed, the pair's `TEXTS`, the scores clean, corrupt and patched, `change` (the arm's
    effect: patched − corrupt, or clean − patched for necessity), `whole` (clean − corrupt), and clean_audio,
    corrupt_audio, patched_audio (paths relative to the study).
    """
    name = choose("scorer", scorer, scorers(result))
    of_concept = result.sel(concept=concept, scorer=name)
    sides = {"clean": "clean", "corrupt": "corrupt", "patched": arm}
    necessity = str(of_concept["direction"].sel(arm=arm).item()) == "necessity"
    rows: list[dict[str, Any]] = []
    for pair, seed in runs(result, concept):
        one = of_concept.sel(pair=pair, seed=seed)
        of_pair = {"pair": pair, "seed": seed, "noise_seed": int(one["noise_seed"])}
        prompts = {text: str(one[text].item()) for text in TEXTS}
        scores = {side: float(one["score"].sel(arm=run)) for side, run in sides.items()}
        change = scores["clean"] - scores["patched"] if necessity else scores["patched"] - scores["corrupt"]
        audio = {f"{side}_audio": str(one["audio"].sel(arm=run).item()) for side, run in sides.items()}
        whole = scores["clean"] - scores["corrupt"]
        rows.append({**of_pair, **prompts, **scores, "change": change, "whole": whole, **audio})
    names = [
        "pair",
        "seed",
        "noise_seed",
        *TEXTS,
        *sides,
        "change",
        "whole",
        *(f"{side}_audio" for side in sides),
    ]
    return pd.DataFrame(rows, columns=names)


def runs(result: xr.Dataset, concept: str) -> list[tuple[int, int]]:
    """The (pair, seed) combinations of a concept that were run; sequential stopping leaves pairs out."""
    audio = result["audio"].sel(concept=concept).transpose("pair", "seed", "arm").values
    score = result["score"].sel(concept=concept).transpose("pair", "seed", "arm", "scorer").values
    run = (audio != "").any(axis=2) | ~np.isnan(score).all(axis=(2, 3))
    pairs, seeds = result["pair"].values, result["seed"].values
    return [(int(pairs[p]), int(seeds[s])) for p, s in zip(*np.nonzero(run), strict=True)]


def arms_frame(result: xr.Dataset, concept: str, pair: int, seed: int, scorer: str = "") -> pd.DataFrame:
    """One row for each distinct recording of a pair and seed: audio, arms (which share it), score."""
    name = choose("scorer", scorer, scorers(result))
    one = result.sel(concept=concept, pair=pair, seed=seed, scorer=name)
    table = pd.DataFrame(
        {
            "audio": one["audio"].values.astype(str),
            "arm": one["arm"].values.astype(str),
            "score": one["score"].values.astype(float),
        }
    )
    table = table[table["audio"] != ""]
    grouped = table.groupby("audio", sort=False)
    return grouped.agg(arms=("arm", list), score=("score", "first")).reset_index()


def agreement(result: xr.Dataset, concept: str, scorer: str = "") -> dict[str, dict[str, float | int]]:
    """`AGREEMENT` of one scorer's map of a concept with each other scorer's map: the rank correlation, and counts."""
    name = choose("scorer", scorer, scorers(result))
    return {
        other: {
            each: result[each].sel(concept=concept, scorer=name, scorer_b=other).item() for each in AGREEMENT
        }
        for other in scorers(result)
        if other != name
    }


def pair_notes(frame: pd.DataFrame) -> list[str]:
    """Sentences on what the numbers of pairs of a map's concepts are not enough for."""
    return [*untested_notes(frame), *_at_the_limit(frame)]


def untested_notes(frame: pd.DataFrame) -> list[str]:
    """Sentences on concepts with too few pairs for any p-value to be significant, one for each number of pairs."""
    few = frame[frame["status"] == UNTESTED].drop_duplicates("concept")
    every = few["concept"].nunique() == frame["concept"].nunique()
    return [
        ("" if every else f"{', '.join(part['concept'])}: ") + too_few_pairs(int(n))
        for n, part in few.groupby("n_pairs")
    ]


def _at_the_limit(frame: pd.DataFrame) -> list[str]:
    """Sentences on cells whose p-value is as small as it can be, but not significant after the correction."""
    unclear = frame[frame["status"] == "not significant"]
    numbers = {int(n): smallest_p(int(n)) for n in unclear["n_pairs"].unique()}
    reached = unclear["p"] <= unclear["n_pairs"].map(numbers) * (1 + 1e-9)
    return [
        f"{counted(n, 'pair')}: the smallest possible p, {numbers[n]:.3g}, is not significant after the correction "
        "over the map's cells. Use more pairs or fewer cells."
        for n in sorted({int(n) for n in unclear.loc[reached, "n_pairs"]})
    ]


def tested_cells(result: xr.Dataset, scorer: str = "") -> int:
    """Number of cells over which a scorer's p-values are corrected."""
    name = choose("scorer", scorer, scorers(result))
    n_cells = int((result["role"] == "cell").sum())
    return n_cells * int(result["defined"].sel(scorer=name).sum())


def _places(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Row and column of each arm on the map."""
    cells = frame[frame["group"] == "cell"].drop_duplicates("arm").set_index("arm")
    rows = set(cells["row"])

    def place(arm: Any) -> tuple[str, str]:
        if arm.group == "cell":
            return str(arm.row), str(arm.column)
        if arm.null_of in cells.index:
            return f"null: {arm.null_kind}", str(cells["column"][arm.null_of])
        return (f"null at {arm.row}" if arm.row in rows else str(arm.row or arm.arm)), str(arm.column)

    return [place(arm) for arm in frame.itertuples()]


def _status(frame: pd.DataFrame) -> np.ndarray:
    in_band = (frame["impact"] >= frame["null_lo"]) & (frame["impact"] <= frame["null_hi"])
    smallest = {n: smallest_p(int(n)) for n in frame["n_pairs"].unique()}
    few = frame["n_pairs"].map(smallest) > ALPHA
    return np.select(
        [
            ~frame["defined"] & (frame["n_pairs"] > 0),
            frame["screened_out"] & (frame["n_pairs"] > 0),
            frame["impact"].isna(),
            frame["group"] == "null",
            few,
            ~(frame["p_adjusted"] <= ALPHA),
            in_band | _like_its_null(frame),
        ],
        ["undefined", SCREENED_OUT, "no score", "null arm", UNTESTED, "not significant", "inside null band"],
        CLEAR,
    )


def _like_its_null(frame: pd.DataFrame) -> np.ndarray:
    """Whether each cell's impact is within the interval of one of its own null arms."""
    nulls = frame.loc[frame["group"] == "null", ["concept", "null_of", "impact_lo", "impact_hi"]]
    cells = frame[["concept", "arm", "impact"]].reset_index()
    own = cells.merge(nulls, left_on=["concept", "arm"], right_on=["concept", "null_of"])
    within = (own["impact"] >= own["impact_lo"]) & (own["impact"] <= own["impact_hi"])
    return frame.index.isin(own.loc[within, "index"])


def _is_planted(blocks: Sequence[int], row: Any) -> bool:
    return row.group == "cell" and row.block in blocks


def choose(what: str, name: str, known: list[str]) -> str:
    """`name`, or the first of the `known` ones if it is empty.

    Raises:
        UserError: `name` is not known.
    """
    if name and name not in known:
        raise UserError(f"There is no {what} '{name}' in this patching result: it has {', '.join(known)}.")
    return name or known[0]
