"""Tables of a steering result: what each way of steering does at each strength, and to which concept."""

import pandas as pd
import xarray as xr

from analyses.statistics import ALPHA, smallest_p
from dashboards.tables.patching import UNTESTED

CLEAR = "clear"
ARM_VALUES = ("effect", "effect_lo", "effect_hi", "p", "p_adjusted", "null_lo", "null_hi")
IMPACTS = ("impact", "impact_lo", "impact_hi")
DENOMINATOR = ("denominator", "denominator_lo", "denominator_hi")
CHECKS = ("upward", "upward_lo", "upward_hi")


def doses_frame(result: xr.Dataset, scorer: str = "") -> pd.DataFrame:
    """One row for each concept and arm of a `steering` result by one scorer, the first by default.

    Columns: concept, own (whether it is the steered one), arm, way, strength, role ("run", "cell", "null"), score (mean
    over pairs and seeds), effect with its interval, p, p_adjusted, null band, and status: "clear", "too few pairs" (for
    any p-value to be significant), "not significant", "inside null band", "null arm", "unsteered" or "no score".
    """
    name = scorer or str(result["scorer"].values[0])
    one = result.sel(scorer=name)
    frames = []
    for concept in result["concept"].values.tolist():
        part = one.sel(concept=concept)
        frame = pd.DataFrame({value: part[value].values for value in ARM_VALUES})
        frame["score"] = part["score"].mean(("pair", "seed")).values
        frame["way"], frame["strength"] = result["row"].values, result["strength"].values
        frame["arm"], frame["role"] = result["arm"].values, result["role"].values
        frame["concept"], frame["own"] = concept, concept == result.attrs["concept"]
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    table["status"] = [_status(row, int(result.sizes["pair"])) for _, row in table.iterrows()]
    first = ["concept", "own", "arm", "way", "strength", "role", "score"]
    return table[[*first, *ARM_VALUES, "status"]]


def checks_frame(result: xr.Dataset, scorer: str = "") -> pd.DataFrame:
    """One row for each way of steering: way, upward with its interval, inverted (whether it steers backwards)."""
    one = result.sel(scorer=scorer or str(result["scorer"].values[0]))
    frame = pd.DataFrame({"way": result["way"].values, **{name: one[name].values for name in CHECKS}})
    return frame.assign(inverted=frame["upward_hi"] < 0)


def is_interpretable(result: xr.Dataset, scorer: str = "") -> bool:
    """Whether the scorer tells the real prompts with and without the concept apart, so that effects mean something."""
    return bool(result["defined"].sel(scorer=scorer or str(result["scorer"].values[0])))


def _status(row: pd.Series, n_pairs: int) -> str:
    if row["role"] == "run":
        return "unsteered"
    if pd.isna(row["effect"]):
        return "no score"
    if row["role"] == "null":
        return "null arm"
    if smallest_p(n_pairs) > ALPHA:
        return UNTESTED
    if not row["p_adjusted"] <= ALPHA:
        return "not significant"
    if row["null_lo"] <= row["effect"] <= row["null_hi"]:
        return "inside null band"
    return CLEAR
