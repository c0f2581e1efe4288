"""The result of an evaluation: the strict comparison of its trials, and the published areas."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr

from analyses.evaluation.alignment import SIGNS, alignment
from analyses.evaluation.benchmark_spec import Protocol
from analyses.evaluation.steering_comparison import compare
from analyses.statistics import CLUSTER_RESAMPLES

DIRECTIONS = {"towards": "positive", "away": "negative"}
"""Prompts with a negative value are steered towards the positive one, those with the positive one away from it, with
strengths of this sign."""
REPORT, SELECTION = "report", "selection"
Trials = Mapping[tuple[str, str, str], xr.Dataset]
"""Trials by concept, direction and stage."""

_SHORT = {"localised": "loc"}


def benchmark_result(trials: Trials, protocol: Protocol, resamples: int = CLUSTER_RESAMPLES) -> xr.Dataset:
    """Return the summaries of all trials.

    Args:
        trials: results of `run_steering` with distances.
        protocol: "strict", or "published" for the published areas alone.
        resamples: number of resamples of each trial's pairs.

    Returns:
        What `published_areas` returns and, with the strict protocol, what `compare` does.
    """
    published = published_areas(trials)
    if protocol == "published":
        return published
    of_stage = {
        stage: {
            concept: [trials[concept, direction, stage] for direction in DIRECTIONS]
            for concept in dict.fromkeys(concept for concept, _, _ in trials)
        }
        for stage in (REPORT, SELECTION)
    }
    strict = compare(of_stage[REPORT], of_stage[SELECTION], resamples)
    found = strict.drop_vars("direction").merge(published, join="outer")  # in alphabetical order
    order = {dim: strict[dim].values for dim in ("concept", "sign", "scorer", "measure")}
    return found.sel({"way": _ways(trials), **order})


def published_areas(trials: Trials) -> xr.Dataset:
    """Return TADA's areas and smoothness of each sign, and their means over the signs.

    They are of means over all clips, up to the distance that PCI reaches at the localised and at all blocks; NaN where
    it was not tried at both. The zero point of every method is the unsteered run: TADA's PCI starts from another
    prompt.

    Args:
        trials: as in `benchmark_result`.

    Returns:
        `published_area`, `published_smoothness` and `published_cutoff` (concept, way, sign, scorer, measure), and
        `published_area_mean` and `published_smoothness_mean` without sign.
    """
    measures = next(iter(trials.values()))["measure"].values.tolist()
    tables = {
        (measure, sign): _of_sign(trials, measure, direction, sign)
        for measure in measures
        for direction, sign in DIRECTIONS.items()
    }
    found = pd.concat(tables, names=["measure", "sign"]).to_xarray()
    found = found.sel(way=_ways(trials), sign=list(SIGNS)).transpose(
        "concept", "way", "sign", "scorer", "measure"
    )
    for name in ("area", "smoothness"):
        found[f"{name}_mean"] = found[name].mean("sign", skipna=False)
    return found.rename({name: f"published_{name}" for name in found.data_vars})


def _of_sign(trials: Trials, measure: str, direction: str, sign: str) -> pd.DataFrame:
    """Return area, smoothness and cutoff of one sign by concept, way and judge."""
    metrics = pd.concat(
        _points(trial, concept, measure)
        for (concept, towards, stage), trial in trials.items()
        if (towards, stage) == (direction, REPORT)
    )
    judges = next(iter(trials.values()))["scorer"].values.tolist()
    found = alignment(metrics, judges)
    names = dict(metrics[["cell", "way"]].drop_duplicates().itertuples(index=False))
    return pd.DataFrame(
        {
            "concept": found["concept"],
            "way": found["cell"].map(names),
            "scorer": found["judge"],
            **{name: found[f"{name}_{sign}"] for name in ("area", "smoothness", "cutoff")},
        }
    ).set_index(["concept", "way", "scorer"])


def _points(trial: xr.Dataset, concept: str, measure: str) -> pd.DataFrame:
    """Return a row for each way and strength, and for each way at 0: mean distance, and mean score by each judge."""
    score = trial["score"].sel(concept=concept).mean(("pair", "seed"))
    distance = trial["distance"].sel(measure=measure).mean(("pair", "seed"))
    cells = trial["arm"].values[trial["role"].values == "cell"]
    arms = [
        (way, arm)
        for way in dict.fromkeys(trial["row"].sel(arm=cells).values.tolist())
        for arm in ("corrupt", *cells[trial["row"].sel(arm=cells).values == way])
    ]
    return pd.DataFrame(
        [
            {
                "cell": _cell(way),
                "way": way,
                "concept": concept,
                "strength": float(trial["strength"].sel(arm=arm)),
                "distance": float(distance.sel(arm=arm)),
                **{str(name): float(score.sel(arm=arm, scorer=name)) for name in score["scorer"].values},
            }
            for way, arm in arms
        ]
    )


def _cell(way: str) -> str:
    """Return the name of a way as in TADA's table: `pci_loc` of "pci (localised)"."""
    method, _, place = way.removesuffix(")").partition(" (")
    return f"{method}_{_SHORT.get(place, place)}"


def _ways(trials: Trials) -> list[str]:
    """Return the ways of steering of all trials, in their order."""
    rows = (trial["row"].values[trial["role"].values == "cell"].tolist() for trial in trials.values())
    return list(dict.fromkeys(name for of_trial in rows for name in of_trial))
