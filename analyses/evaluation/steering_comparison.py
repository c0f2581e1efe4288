"""Ways of steering compared over concepts: the summaries of their trials, leakage, and a ranking over all."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.curve_summaries import control_of, statistics_of
from analyses.evaluation.dose_curves import TrialMeans, trial_means, ways_of
from analyses.evaluation.equal_distance import common_distances
from analyses.evaluation.leakage import leakage
from analyses.evaluation.ranking import rank_interval
from analyses.evaluation.replicates import Replicates, Values
from analyses.evaluation.steering_summary import summarise
from analyses.statistics import CLUSTER_RESAMPLES


def compare(
    trials: Mapping[str, xr.Dataset],
    selections: Mapping[str, xr.Dataset] | None = None,
    resamples: int = CLUSTER_RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Summarise the trials of several concepts, with the leakage between them and a ranking over all.

    Args:
        trials: a trial of each concept, with the same judges and distances, and the other concepts judged, too (see
            `summarise`).
        selections: by concept, the trials that choose the strengths.
        resamples: number of resamples of each trial's pairs.
        seed: seed of the resamples.

    Returns:
        The summaries with the dim `concept`; `leakage` (see there); and by (way, sign, scorer, measure) `overall`, the
        mean over interpretable concepts of the ratio to the real prompt at equal distance, `overall_rank`, both with
        intervals, `overall_first`, the share of resamples in which the way is first, and `overall_n`, the number of
        concepts (scorer).
    """
    chosen = selections or {}
    summaries = [
        summarise(trial, chosen.get(concept), resamples=resamples, seed=seed)
        for concept, trial in trials.items()
    ]
    means = {  # other draws for each: they have no pairs in common
        concept: trial_means(trial, Replicates(trial.sizes["pair"], resamples, seed + 1 + number))
        for number, (concept, trial) in enumerate(trials.items())
    }
    found = _side_by_side(list(trials), summaries)
    able = found.interpretable.transpose("concept", "scorer").values
    overall = _overall(trials, means, able).reindex(way=found.way)
    return found.merge(leakage(trials, means), join="exact").merge(overall, join="exact")


def _side_by_side(concepts: list[str], summaries: list[xr.Dataset]) -> xr.Dataset:
    """Return the summaries along `concept`; ways and arms that a concept lacks are NaN or "" there."""
    labels: dict[str, dict[str, object]] = {name: {} for name in ("row", "strength", "role", "null_of")}
    for summary in summaries:
        for name, known in labels.items():
            known |= dict(zip(summary["arm"].values.tolist(), summary[name].values.tolist(), strict=True))
    arms = list(labels["row"])
    ways = list(dict.fromkeys(way for summary in summaries for way in summary.way.values.tolist()))
    of_arms = {name: ("arm", [known[arm] for arm in arms]) for name, known in labels.items()}
    texts = [name for name, values in summaries[0].data_vars.items() if values.dtype == object]
    whole = [one.reindex(arm=arms, way=ways).assign_coords(of_arms) for one in summaries]
    whole = [one.assign({name: one[name].fillna("") for name in texts}) for one in whole]
    found = xr.concat(
        whole, xr.Variable("concept", concepts), coords="minimal", compat="override", join="exact"
    )
    warnings = [
        f"{concept}: {line}"
        for concept, one in zip(concepts, summaries, strict=True)
        for line in one.attrs["warnings"].splitlines()
    ]
    found.attrs = {"confidence": summaries[0].attrs["confidence"], "warnings": "\n".join(warnings)}
    return found


def _overall(
    trials: Mapping[str, xr.Dataset], means: Mapping[str, TrialMeans], able: np.ndarray
) -> xr.Dataset:
    """Return the mean ratio at equal distance over concepts, and ranks by it, of ways that all concepts have."""
    first = next(iter(trials.values()))
    ways = [way for way in ways_of(first) if all(way in ways_of(trial) for trial in trials.values())]
    coords = {
        "way": ways,
        "sign": list(SIGNS),
        "scorer": first.scorer.values,
        "measure": first.measure.values,
    }
    shape = [len(labels) for labels in coords.values()]
    names = [name + end for name in ("overall", "overall_rank") for end in ("", "_lo", "_hi")]
    found = xr.Dataset(
        {name: (tuple(coords), np.full(shape, np.nan)) for name in [*names, "overall_first"]}, coords
    )
    found["overall_n"] = "scorer", able.sum(axis=0)
    least = min(trial.sizes["pair"] for trial in trials.values())
    for sign in SIGNS:
        ratios = [
            _ratios(trial, own, ways, sign, able[number])
            for number, (trial, own) in enumerate(zip(trials.values(), means.values(), strict=True))
        ]
        known = [ratio for ratio in ratios if ratio is not None]
        if not ways or len(known) < len(ratios):
            continue
        values = _mean_over_concepts(known)
        replicates = Replicates(1, len(values) - 2)  # their rows: the sample, none without a pair, resamples
        interval = replicates.interval(values, least, corrected=False)
        rank, best = rank_interval(values, least, replicates)
        for name, of_name in zip([*names, "overall_first"], (*interval, *rank, best), strict=True):
            found[name].loc[:, sign] = of_name
    return found


def _ratios(
    trial: xr.Dataset, means: TrialMeans, ways: list[str], sign: str, able: np.ndarray
) -> Values | None:
    """Return ratios at equal distance (replicate, way, scorer, measure) of the sample and the resamples."""
    curves = means.curves(ways)
    if any((way, sign) not in curves for way in ways):
        return None
    distance = common_distances(means.curves(ways_of(trial)))[sign]
    of_ways = [
        statistics_of(curves[way, sign], distance, control_of(means))["ratio_at_distance"].values
        for way in ways
    ]
    n = means.replicates.weights.shape[1]
    stacked = np.where(able[:, None], np.stack(of_ways, axis=1), np.nan)
    return np.concatenate([stacked[:1], stacked[:1], stacked[1 + n :]])


def _mean_over_concepts(ratios: list[Values]) -> Values:
    """Return the mean over concepts whose judge is interpretable; NaN without any."""
    stacked = np.stack(ratios)
    able = ~np.isnan(stacked[:, 0]).all(axis=1)  # (concept, scorer, measure)
    weight = able[:, None, None].astype(float)
    total = np.where(weight > 0, stacked, 0).sum(axis=0)
    return np.divide(
        total, weight.sum(axis=0), out=np.full(total.shape, np.nan), where=weight.sum(axis=0) > 0
    )
