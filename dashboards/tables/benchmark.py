"""Tables of an evaluation of steering methods."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analyses.evaluation.alignment import alignment
from analyses.evaluation.benchmark_spec import is_control
from dashboards.tables.steering import CLEAR

DIRECTIONS = {"positive": "towards", "negative": "away"}
"""What a sign of the strengths means: steering towards the positive value, or away from it."""
TITLES = {"towards": "towards the value", "away": "away from the value"}
"""The directions as titles."""
SELECTED = ("effect", "on_target", "preservation", "harmonic")
ENDS = ("", "_lo", "_hi")


def _with_ends(*names: str) -> tuple[str, ...]:
    return tuple(name + end for name in names for end in ENDS)


STRICT = {
    "arm": ("row", "strength", "role", "null_of"),
    "sign concept": ("n_pairs", "n_seeds"),
    "sign concept scorer": (*_with_ends("control"), "interpretable", "reason", "selected_by"),
    "sign concept measure": (*_with_ends("common_distance"), "limited_by"),
    "sign concept way measure": ("strength_at_distance",),
    "sign concept arm scorer": _with_ends("effect", "ratio"),
    "sign concept arm measure": _with_ends("distance", "preservation"),
    "sign concept way scorer measure": (
        *_with_ends("effect_at_distance", "ratio_at_distance", "rank"),
        *("null_effect_at_distance_lo", "null_effect_at_distance_hi", "first", "selected_strength"),
        *_with_ends(*(f"selected_{name}" for name in SELECTED)),
    ),
    "sign concept judged way scorer measure": _with_ends("leakage"),
    "sign way scorer measure": (*_with_ends("overall", "overall_rank"), "overall_first"),
    "sign scorer": ("overall_n",),
}
"""The variables of a result with the strict protocol that are shown, by their dims."""
PUBLISHED = {
    "concept way sign scorer measure": ("published_area", "published_smoothness", "published_cutoff"),
    "concept way scorer measure": ("published_area_mean", "published_smoothness_mean"),
}
"""Those of the published protocol."""
_CELLS_OF_TADA = {
    "cs": "concept-slider",
    "textemb": "text-embedding",
    "tokemb": "token-embedding",
    "freesliders": "free-sliders",
    "sae": "sae-features",
}
_JUDGES_OF_TADA = {"muqt": "TADA MuQ", "clap": "TADA CLAP"}
TEXTS = ("row", "role", "null_of", "reason", "selected_by", "limited_by")


def ranking_frame(result: xr.Dataset, scorer: str = "", measure: str = "") -> pd.DataFrame:
    """One row for each concept, direction and way of steering of a `steering-benchmark` by one judge and distance.

    They are the first by default. Columns: concept, direction, way, strength (chosen on other prompts) and there the
    effect, on_target, preservation and harmonic, with their intervals; strength_at, the strength at equal distance, and
    there effect_at, ratio_at (as a fraction of the real prompt's) and rank, with their intervals; band_lo and band_hi,
    where random vectors at the same blocks lie there; control, the effect of the real prompt; and status: why there are
    no numbers, or "".
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


def areas_of_tada(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row for each concept and way of steering of TADA's table: concept, way and the areas "TADA MuQ", "TADA CLAP".

    `metrics` is what `load_steering_metrics` returns; taken is its axis of distances by LPAPS. Ways are called as in
    evaluations here.
    """
    found = alignment(metrics[metrics["axis"] == "lpaps"], list(_JUDGES_OF_TADA))
    found["way"] = found["cell"].map(_way_of_cell)
    table = found.pivot(index=["concept", "way"], columns="judge", values="area")
    return table.rename(columns=_JUDGES_OF_TADA).rename_axis(columns=None).reset_index()


def _way_of_cell(cell: str) -> str:
    """Return a cell of TADA's table as it is called here: "concept-slider (all)" of `cs_all`."""
    method, _, place = cell.partition("_")
    return f"{_CELLS_OF_TADA.get(method, method)} ({'all' if place == 'all' else 'localised'})"


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
    values["strength_at"] = float(of_way["strength_at_distance"])
    values |= {f"band{end}": _band(part, way, end) for end in ("_lo", "_hi")}
    values["control"] = float(part["control"])
    return values | {"status": str(part["reason"].values)}


def _band(part: xr.Dataset, way: str, end: str) -> float:
    """Return an end of the band of random vectors at a way's blocks; NaN without any. They are like CAA's vectors."""
    at_place = [other for other in part["way"].values.tolist() if place_of(other) == place_of(way)]
    bands = part[f"null_effect_at_distance{end}"].sel(way=at_place).values
    known = bands[~np.isnan(bands)]
    return float(known[0]) if known.size else np.nan


def place_of(way: str) -> str:
    """The blocks of a way of steering: "localised" of "caa (localised)", and of a random vector like it."""
    return way.rpartition("(")[2].rstrip(")") if "(" in way else ""


def method_of(way: str) -> str:
    """The method of a way of steering: "caa" of "caa (localised)"."""
    return way.partition(" (")[0]


def methods(result: xr.Dataset) -> list[str]:
    """The methods that were compared."""
    return list(dict.fromkeys(method_of(way) for way in result["way"].values.tolist()))


def curves_frame(result: xr.Dataset, concept: str, scorer: str = "", measure: str = "") -> pd.DataFrame:
    """One row for each direction and arm of a concept: what it does, and how far from the unsteered clips it is.

    Columns: direction, way, place, arm, strength, role ("run", "cell", "null"); distance and preservation, effect (in
    units of the score) and ratio (of the wanted change, as a fraction of the real prompt's), each with its interval;
    common_distance, at which ways are compared; and status: why there are no numbers, or "".
    """
    one = of_judge(result, scorer, measure).sel(concept=concept)
    frames = []
    for sign in one["sign"].values.tolist():
        part = one.sel(sign=sign)
        numbers = [name + end for name in ("distance", "preservation", "effect", "ratio") for end in ENDS]
        frame = pd.DataFrame({name: part[name].values for name in ("arm", "strength", "role")})
        frame["direction"], frame["way"] = DIRECTIONS[sign], part["row"].values
        frame["place"] = frame["way"].map(place_of)
        frame = frame.assign(**{name: part[name].values.astype(float) for name in numbers})
        frame["common_distance"], frame["status"] = (
            float(part["common_distance"]),
            str(part["reason"].values),
        )
        of_sign = frame["strength"] > 0 if sign == "positive" else frame["strength"] < 0
        # An arm of another concept, whose ways have other strengths, has no numbers.
        tried = (
            of_sign & frame["role"].isin(("cell", "null")) & frame[["distance", "effect"]].notna().any(axis=1)
        )
        frames.append(frame[(frame["role"] == "run") | tried])
    first = ["direction", "way", "place", "arm", "strength", "role"]
    return pd.concat(frames, ignore_index=True)[[*first, *numbers, "common_distance", "status"]]


def methods_frame(result: xr.Dataset, concept: str = "", scorer: str = "", measure: str = "") -> pd.DataFrame:
    """One row for each way of steering and direction, the best first: what it does at equal distance.

    It is of one concept or, without one, the mean over those that the judge can hear. Columns: direction, way, ratio
    (of the wanted change, as a fraction of the real prompt's) with its interval; band_lo and band_hi, where random
    vectors at the same blocks lie (of one concept); rank with its interval; first, the share of resamples in which the
    way is the first; n, the number of pairs or concepts; common_distance, the distance, and limited_by, the way that
    reaches no farther or the real prompt (of one concept); status: why there are no numbers, or ""; and verdict:
    "clear", "not clear" (the interval includes 0), "inside random band" or "undefined". The best has the largest ratio
    in the mean over the directions; controls, which have no rank, come last.
    """
    one = of_judge(result, scorer, measure)
    rows = []
    for sign in one["sign"].values.tolist():
        part = one.sel(sign=sign)
        of_concept = _of_concept(part.sel(concept=concept)) if concept else _of_all(part)
        rows += [{"direction": DIRECTIONS[sign], **row} for row in of_concept]
    frame = pd.DataFrame(rows)
    frame["verdict"] = [_verdict(row) for row in rows]
    means = frame.groupby("way")["ratio"].mean()
    order = means.sort_values(ascending=False, kind="stable", na_position="last").index.tolist()
    order.sort(key=is_control)
    frame["place"] = frame["way"].map(order.index)
    return frame.sort_values("place", kind="stable", ignore_index=True).drop(columns="place")


def _verdict(row: Mapping[str, Any]) -> str:
    if np.isnan(row["ratio"]):
        return "undefined"
    if row["band_lo"] <= row["ratio"] <= row["band_hi"]:
        return "inside random band"
    return CLEAR if row["ratio_lo"] > 0 or row["ratio_hi"] < 0 else "not clear"


def _of_concept(part: xr.Dataset) -> list[dict[str, Any]]:
    control = float(part["control"])
    rows: list[dict[str, Any]] = []
    for way in part["way"].values.tolist():
        of_way = part.sel(way=way)
        rows.append(
            {
                "way": way,
                **{f"ratio{end}": float(of_way[f"ratio_at_distance{end}"]) for end in ENDS},
                **{
                    f"band{end}": _band(part, way, end) / control if control > 0 else np.nan
                    for end in ENDS[1:]
                },
                **{f"rank{end}": float(of_way[f"rank{end}"]) for end in ENDS},
                "first": float(of_way["first"]),
                "n": int(part["n_pairs"]),
                "common_distance": float(part["common_distance"]),
                "limited_by": str(part["limited_by"].values),
                "status": str(part["reason"].values),
            }
        )
    return rows


def _of_all(part: xr.Dataset) -> list[dict[str, Any]]:
    n = int(part["overall_n"])
    return [
        {
            "way": way,
            **{f"ratio{end}": float(part[f"overall{end}"].sel(way=way)) for end in ENDS},
            **dict.fromkeys(("band_lo", "band_hi"), np.nan),
            **{f"rank{end}": float(part[f"overall_rank{end}"].sel(way=way)) for end in ENDS},
            "first": float(part["overall_first"].sel(way=way)),
            "n": n,
            "common_distance": np.nan,
            "limited_by": "",
            "status": "" if n else "the judge does not tell the real prompts of any concept apart",
        }
        for way in part["way"].values.tolist()
    ]


def leakage_frame(
    result: xr.Dataset, direction: str, method: str = "", scorer: str = "", measure: str = ""
) -> pd.DataFrame:
    """One row for each way of steering (of one method, or of all), steered concept and judged concept.

    Columns: direction, way, concept, judged, own (whether they are the same), leakage with its interval (the change at
    equal distance, as a fraction of what the judged concept's own prompts do), and status: "clear", "not clear" (the
    interval includes 0) or "undefined".
    """
    (sign,) = (sign for sign, name in DIRECTIONS.items() if name == direction)
    one = of_judge(result, scorer, measure).sel(sign=sign)
    names = [f"leakage{end}" for end in ENDS]
    order = ("way", "concept", "judged")
    frame = one[names].transpose(*order).to_dataframe(dim_order=order)[names].reset_index()
    frame.insert(0, "direction", direction)
    frame.insert(4, "own", frame["concept"] == frame["judged"])
    is_clear = (frame["leakage_lo"] > 0) | (frame["leakage_hi"] < 0)
    frame["status"] = np.where(frame["leakage"].isna(), "undefined", np.where(is_clear, CLEAR, "not clear"))
    return frame[frame["way"].map(method_of) == method].reset_index(drop=True) if method else frame
