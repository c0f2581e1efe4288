"""Tables of an evaluation of steering methods."""

import numpy as np
import pandas as pd
import xarray as xr

DIRECTIONS = {"positive": "towards", "negative": "away"}
"""What a sign of the strengths means: steering towards the positive value, or away from it."""
SELECTED = ("effect", "on_target", "preservation", "harmonic")
ENDS = ("", "_lo", "_hi")


def ranking_frame(result: xr.Dataset, scorer: str = "", measure: str = "") -> pd.DataFrame:
    """One row for each concept, direction and way of steering of a `steering-benchmark` by one judge and distance.

    They are the first by default. Columns: concept, direction, way, strength (chosen on other prompts) and there the
    effect, on_target, preservation and harmonic, with their intervals; at equal distance: effect_at, ratio_at (as a
    fraction of the real prompt's) and rank, with their intervals; band_lo and band_hi, where random vectors at the same
    blocks lie there; control, the effect of the real prompt; and status: why there are no numbers, or "".
    """
    one = of_judge(result, scorer, measure)
    rows = []
    for concept in one["concept"].values.tolist():
        for sign in one["sign"].values.tolist():
            part = one.sel(concept=concept, sign=sign)
            for way in part["way"].values.tolist():
                rows.append(
                    {"concept": concept, "direction": DIRECTIONS[sign], "way": way, **_row(part, way)}
                )
    return pd.DataFrame(rows)


def published_frame(result: xr.Dataset, scorer: str = "", measure: str = "") -> pd.DataFrame:
    """One row for each concept and way of steering: TADA's areas and smoothness by one judge and distance.

    Columns: concept, way, area (the mean over the signs), area_positive, area_negative, smoothness, cutoff_positive and
    cutoff_negative. NaN where PCI was not tried at the localised and at all blocks.
    """
    one = of_judge(result, scorer, measure)
    rows = []
    for concept in one["concept"].values.tolist():
        for way in one["way"].values.tolist():
            part = one.sel(concept=concept, way=way)
            rows.append(
                {
                    "concept": concept,
                    "way": way,
                    "area": float(part["published_area_mean"]),
                    "smoothness": float(part["published_smoothness_mean"]),
                    **{
                        f"{name}_{sign}": float(part[f"published_{name}"].sel(sign=sign))
                        for name in ("area", "cutoff")
                        for sign in DIRECTIONS
                    },
                }
            )
    return pd.DataFrame(rows)


def of_judge(result: xr.Dataset, scorer: str = "", measure: str = "") -> xr.Dataset:
    """Return what one judge and one distance say, by default the first."""
    return result.sel(
        scorer=scorer or str(result["scorer"].values[0]), measure=measure or str(result["measure"].values[0])
    )


def _row(part: xr.Dataset, way: str) -> dict[str, float | str]:
    of_way = part.sel(way=way)
    values: dict[str, float | str] = {"strength": float(of_way["selected_strength"])}
    for name in SELECTED:
        values |= {name + end: float(of_way[f"selected_{name}{end}"]) for end in ENDS}
    for name, short in (
        ("effect_at_distance", "effect_at"),
        ("ratio_at_distance", "ratio_at"),
        ("rank", "rank"),
    ):
        values |= {short + end: float(of_way[name + end]) for end in ENDS}
    values |= {f"band{end}": _band(part, way, end) for end in ("_lo", "_hi")}
    values["control"] = float(part["control"])
    return values | {"status": str(part["reason"].values)}


def _band(part: xr.Dataset, way: str, end: str) -> float:
    """Return an end of the band of random vectors at a way's blocks; NaN without any. They are like CAA's vectors."""
    _, _, place = way.partition(" ")
    at_place = [other for other in part["way"].values.tolist() if other.partition(" ")[2] == place]
    bands = part[f"null_effect_at_distance{end}"].sel(way=at_place).values
    known = bands[~np.isnan(bands)]
    return float(known[0]) if known.size else np.nan
