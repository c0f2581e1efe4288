"""Tables of a steering result: what each way of steering does at each strength, and to which concept."""

import json
import re
from collections.abc import Hashable
from typing import Any

import pandas as pd
import xarray as xr

from analyses.statistics import ALPHA, smallest_p
from analyses.steering.checks import sign_verdict
from analyses.steering.effects import UNSTEERED, compared_arms, pairs_with_both
from dashboards.names import shortened
from dashboards.tables.patching import UNTESTED

POSITIVE = "clean"
"""The arm of the real prompt that is steered to, with the positive value unless it is steered away from it;
`UNSTEERED` is the one that is steered."""
FLOOR = "floor"
"""The role of a vector at next to no strength."""

CLEAR = "clear"
LONGEST_LABEL = 30  # characters beside a figure
FILE = re.compile(r"^.*/([^/]+)\.safetensors")
ARM_VALUES = ("effect", "effect_lo", "effect_hi", "p", "p_adjusted", "null_lo", "null_hi")
IMPACTS = ("impact", "impact_lo", "impact_hi")
DENOMINATOR = ("denominator", "denominator_lo", "denominator_hi")
CHECKS = ("upward", "upward_lo", "upward_hi")


def doses_frame(result: xr.Dataset, scorer: str = "") -> pd.DataFrame:
    """One row for each concept and arm of a `steering` result by one scorer, the first by default.

    Columns: concept, own (whether it is the steered one), arm, way, strength, role ("run", "cell", "null"), score (mean
    over pairs and seeds), effect with its interval, p, p_adjusted, null band, and status: "clear", "too few pairs" (for
    any p-value to be significant), "not significant", "inside null band", "null arm", "unsteered" or "no score".
    Floors, whose strength is next to nothing, are left out.
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
        frames.append(frame[frame["role"] != FLOOR])
    table = pd.concat(frames, ignore_index=True)
    few = smallest_p(int(result.sizes["pair"])) > ALPHA
    table["status"] = [_status(row, few) for row in table.to_dict("records")]
    first = ["concept", "own", "arm", "way", "strength", "role", "score"]
    return table[[*first, *ARM_VALUES, "status"]]


def strengths(result: xr.Dataset) -> list[float]:
    """The strengths that ways of steering were tried at, in order."""
    return sorted({float(value) for value in result["strength"].values[result["role"].values == "cell"]})


def chosen_frame(result: xr.Dataset, scorer: str = "", strength: float | None = None) -> pd.DataFrame:
    """One row of `doses_frame` for each way of steering, on the steered concept: the dose that stands for it.

    It is the dose at `strength`; for ways that were not tried at it, or without a strength, the one with the largest
    effect in the wanted direction. The columns impact, impact_lo, impact_hi, band_lo, band_hi (the null band as impact)
    and best (whether it is the one with the largest effect) are added; `status` is "undefined" where impacts are.
    """
    doses = doses_frame(result, scorer)
    cells = doses[doses["own"] & (doses["role"] == "cell")]
    rows, wanted = [], -1 if is_away(result) else 1
    for _, part in cells.groupby("way", sort=False):
        best = (wanted * part["effect"]).fillna(float("-inf")).idxmax()
        asked = part.index[part["strength"] == strength]
        rows.append(part.loc[asked[0] if len(asked) else best].to_dict() | {"best": not len(asked)})
    one = result.sel(scorer=scorer or str(result["scorer"].values[0]))
    table = pd.DataFrame(rows)
    for name in IMPACTS:
        table[name] = one[name].sel(arm=table["arm"].tolist()).values
    whole = float(one["denominator"]) if is_interpretable(result, scorer) else float("nan")
    ends = ("null_hi", "null_lo") if is_away(result) else ("null_lo", "null_hi")
    table["band_lo"], table["band_hi"] = (table[end] / whole for end in ends)
    if not is_interpretable(result, scorer):
        table["status"] = table["status"].where(table["status"] == "no score", "undefined")
    return table


def arm_labels(arms: list[str], most: int = LONGEST_LABEL) -> list[str]:
    """Labels of different arms, of at most so many characters: of a vector given by its path, the name of its file.

    They are the arms' own names where two labels would be the same.
    """
    labels = [shortened(FILE.sub(r"\1", arm), most) for arm in arms]
    return labels if len(set(labels)) == len(arms) else list(arms)


def steered_frame(result: xr.Dataset, arm: str, concept: str, scorer: str = "") -> pd.DataFrame:
    """One row for each pair and seed of an arm: these, noise seed, prompts, and the scores for a concept.

    The scores are `unsteered`, `steered` and `real` (of the prompt with the positive value); NaN where there is none.
    """
    score = result["score"].sel(scorer=scorer or str(result["scorer"].values[0]), concept=concept)
    score = score.transpose("pair", "seed", "arm")
    sides = {"unsteered": UNSTEERED, "steered": arm, "real": POSITIVE}
    shape = score.shape[:2]
    rows = []
    for p, s in ((p, s) for p in range(shape[0]) for s in range(shape[1])):
        place = {"pair": p, "seed": s}
        rows.append(
            {
                "pair": int(result["pair"].values[p]),
                "seed": int(result["seed"].values[s]),
                "noise_seed": int(result["noise_seed"].isel(place)),
                "clean_prompt": str(result["clean_prompt"].isel(pair=p).item()),
                "corrupt_prompt": str(result["corrupt_prompt"].isel(pair=p).item()),
                **{side: float(score.isel(place).sel(arm=name)) for side, name in sides.items()},
            }
        )
    return pd.DataFrame(rows)


def clips_frame(
    result: xr.Dataset, way: str, pair: int, seed: int, concept: str, scorer: str = ""
) -> pd.DataFrame:
    """The clips of a pair and seed in one way of steering, by strength: arm, strength, score, audio.

    The unsteered run is the one with strength 0; the real prompt with the positive value comes last.
    """
    one = result.sel(pair=pair, seed=seed)
    score = one["score"].sel(concept=concept, scorer=scorer or str(result["scorer"].values[0]))
    table = pd.DataFrame(
        {
            "arm": result["arm"].values.astype(str),
            "strength": result["strength"].values.astype(float),
            "score": score.values.astype(float),
            "audio": one["audio"].values.astype(str),
        }
    )
    of_way = (result["row"].values == way) & (result["role"].values == "cell")
    steered = table[of_way | (table["arm"] == UNSTEERED).to_numpy()].sort_values("strength", kind="stable")
    return pd.concat([steered, table[table["arm"] == POSITIVE]], ignore_index=True)


def checks_frame(result: xr.Dataset, scorer: str = "") -> pd.DataFrame:
    """One row for each way of steering: way, compared (the two strengths), pairs, upward with its interval, verdict.

    Pairs are those with a score at both strengths. The verdict is that of `analyses.steering.checks.sign_verdict`.
    """
    one = result.sel(scorer=scorer or str(result["scorer"].values[0]))
    frame = pd.DataFrame({"way": result["way"].values, **{name: one[name].values for name in CHECKS}})
    compared = [_compared(one, way) for way in frame["way"]]
    frame["compared"], frame["pairs"] = zip(*compared, strict=True) if compared else ((), ())
    found = zip(frame["pairs"], frame["upward_lo"], frame["upward_hi"], strict=True)
    control = float(one["denominator"].fillna(0.0))
    frame["verdict"] = [sign_verdict(pairs, low, high, control) for pairs, low, high in found]
    return frame


def _compared(one: xr.Dataset, way: str) -> tuple[str, int]:
    """The strengths that the sign check of a way of steering compares, and the number of pairs with both scores."""
    arms = compared_arms(one, way)
    start, end = (f"{strength:g}".replace("-", "−") for strength in arms)
    pairs = pairs_with_both(one["score"].sel(concept=one.attrs["concept"]), arms.values())
    return f"from {'unsteered' if start == '0' else start} to {end}", pairs


def is_away(result: xr.Dataset) -> bool:
    """Whether the prompts with the positive value are steered, away from it, as in trials of an evaluation."""
    return bool(json.loads(result.attrs["spec"]).get("steered") == "positive")


def steered_ends(result: xr.Dataset) -> tuple[str, str]:
    """The value that the steered prompts have, and the one that the real prompts have in its place."""
    ends = str(result.attrs["negative"]), str(result.attrs["positive"])
    return (ends[1], ends[0]) if is_away(result) else ends


def is_interpretable(result: xr.Dataset, scorer: str = "") -> bool:
    """Whether the scorer tells the real prompts with and without the concept apart, so that effects mean something."""
    return bool(result["defined"].sel(scorer=scorer or str(result["scorer"].values[0])))


def _status(row: dict[Hashable, Any], few: bool) -> str:
    if row["role"] == "run":
        return "unsteered"
    if pd.isna(row["effect"]):
        return "no score"
    if row["role"] == "null":
        return "null arm"
    if few:
        return UNTESTED
    if not row["p_adjusted"] <= ALPHA:
        return "not significant"
    if row["null_lo"] <= row["effect"] <= row["null_hi"]:
        return "inside null band"
    return CLEAR
