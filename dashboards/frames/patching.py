"""Numbers of a patching map."""

import re

import numpy as np
import pandas as pd
import xarray as xr

BLOCK = re.compile(r"tf(\d+)")
CELL_VALUES = ("impact", "impact_lo", "impact_hi")
TEXTS = ("clean_prompt", "corrupt_prompt", "clean_value", "corrupt_value", "text")
CONCEPT_VALUES = ("n", "defined", "denominator", "denominator_lo", "denominator_hi")


def map_arms(result: xr.Dataset) -> tuple[list[str], list[str]]:
    """Arms of a patching result that a map shows: (blocks in the network's order, sets of blocks)."""
    arms = [str(arm) for arm in result["arm"].values]
    blocks = sorted((arm for arm in arms if BLOCK.fullmatch(arm)), key=lambda arm: int(arm[2:]))
    return blocks, [arm for arm in arms if arm not in {"clean", "corrupt", *blocks}]


def patching_frame(result: xr.Dataset, planted: dict[str, list[int]] | None = None) -> pd.DataFrame:
    """One row for each cell (concept, arm) of the map of a `patching` result.

    Columns: concept, arm, group ("block" or "set"), impact with its interval (NaN unless `status` says there is a
    number), n, defined, the denominator with its interval, and status: "clear" (interval without zero),
    "contains zero", "undefined" (denominator not above zero) or "no score". With `planted` (concept -> block
    numbers) a column `planted` marks the cells in which the model's truth card puts the concept.
    """
    blocks, sets = map_arms(result)
    cells = result[[*CELL_VALUES, *CONCEPT_VALUES]].sel(arm=blocks + sets)
    frame = cells.to_dataframe(dim_order=["concept", "arm"]).reset_index()
    frame.insert(2, "group", np.where(frame["arm"].isin(blocks), "block", "set"))
    frame["defined"] = frame["defined"].astype(bool)
    frame.loc[~frame["defined"], list(CELL_VALUES)] = np.nan
    clear = (frame["impact_lo"] > 0) | (frame["impact_hi"] < 0)
    frame["status"] = np.select(
        [~frame["defined"], frame["impact"].isna(), clear],
        ["undefined", "no score", "clear"],
        "contains zero",
    )
    if planted is not None:
        marked = {(concept, f"tf{block}") for concept, numbers in planted.items() for block in numbers}
        frame["planted"] = [cell in marked for cell in zip(frame["concept"], frame["arm"], strict=True)]
    return frame


def pairs_frame(result: xr.Dataset, concept: str, arm: str) -> pd.DataFrame:
    """One row for each pair and seed behind the cell (concept, arm).

    Columns: pair, seed, the pair's `TEXTS`, the scores clean, corrupt and patched, and clean_audio, corrupt_audio,
    patched_audio (paths relative to the study).
    """
    of_concept = result.sel(concept=concept)
    sides = {"clean": "clean", "corrupt": "corrupt", "patched": arm}
    rows = []
    for pair in of_concept["pair"].values:
        prompts = {name: str(of_concept[name].sel(pair=pair).item()) for name in TEXTS}
        for seed in of_concept["seed"].values:
            runs = of_concept.sel(pair=pair, seed=seed)
            scores = {side: float(runs["score"].sel(arm=name)) for side, name in sides.items()}
            audio = {f"{side}_audio": str(runs["audio"].sel(arm=name).item()) for side, name in sides.items()}
            rows.append({"pair": int(pair), "seed": int(seed), **prompts, **scores, **audio})
    return pd.DataFrame(rows)
