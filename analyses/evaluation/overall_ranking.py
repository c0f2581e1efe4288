"""Ways of steering ranked over all concepts, by what they do at equal distance."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from analyses.evaluation.benchmark_spec import is_control
from analyses.evaluation.curve_summaries import statistics_of
from analyses.evaluation.dose_curves import TrialMeans, ways_of
from analyses.evaluation.equal_distance import common_distances
from analyses.evaluation.ranking import rank_interval
from analyses.evaluation.replicates import Replicates, Values

DIMS = ("way", "scorer", "measure")


def overall_ranking(
    trials: Mapping[str, xr.Dataset],
    means: Mapping[str, TrialMeans],
    able: Bool[np.ndarray, "concept scorer"],
    sign: str,
) -> xr.Dataset:
    """Rank the ways of steering that all concepts have by their mean ratio to the real prompt at equal distance.

    Args:
        trials: the trial of each concept.
        means: their means, from independent replicates.
        able: where the judge is interpretable; the other concepts do not count.
        sign: of the strengths.

    Returns:
        By (way, scorer, measure): `overall`, the mean ratio over concepts, and `overall_rank`, each with `_lo` and
        `_hi`, and `overall_first`, the share of resamples in which the way is first. A way that does not reach the
        distance in one of the concepts has none of them, and a control no rank. By scorer: `overall_n`, the number of
        concepts.
    """
    of_trials = [
        _ratios(trial, own, sign) for trial, own in zip(trials.values(), means.values(), strict=True)
    ]
    first = next(iter(trials.values()))
    ways = [way for way in of_trials[0] if all(way in of_trial for of_trial in of_trials)]
    coords = {"way": ways, "scorer": first.scorer.values, "measure": first.measure.values}
    found = xr.Dataset({"overall_n": ("scorer", able.sum(axis=0))}, coords)
    if not ways:
        nothing = np.zeros((0, first.sizes["scorer"], first.sizes["measure"]))
        numbers = [name + end for name in ("overall", "overall_rank") for end in ("", "_lo", "_hi")]
        return found.assign(dict.fromkeys([*numbers, "overall_first"], (DIMS, nothing)))
    ratios = np.stack([np.stack([of_trial[way] for way in ways], axis=1) for of_trial in of_trials])
    values = _mean_over_concepts(ratios, able)
    replicates = Replicates(
        1, values.shape[0] - 2
    )  # of the right number; these pairs are those of several trials
    n = min(trial.sizes["pair"] for trial in trials.values())
    methods = np.array([not is_control(way) for way in ways])[:, None, None]
    rank, best = rank_interval(np.where(methods, values, np.nan), n, replicates)
    found = found.assign(replicates.interval(values, n, corrected=False).named("overall", *DIMS))
    return found.assign({**rank.named("overall_rank", *DIMS), "overall_first": (DIMS, best)})


def _ratios(trial: xr.Dataset, means: TrialMeans, sign: str) -> dict[str, Values]:
    """Return the ratios of each way, of the sample (twice, the second for the samples without a pair) and resamples."""
    curves = means.curves(ways_of(trial))
    distance = common_distances(curves, means.real_distance)[sign].values
    resamples = slice(1 + means.replicates.weights.shape[1], None)
    found = {}
    for (way, of_way), curve in curves.items():
        if of_way == sign:
            ratio = statistics_of(curve, distance)["ratio_at_distance"].values
            found[way] = np.concatenate([ratio[:1], ratio[:1], ratio[resamples]])
    return found


def _mean_over_concepts(
    ratios: Float[np.ndarray, "concept replicate way scorer measure"],
    able: Bool[np.ndarray, "concept scorer"],
) -> Float[np.ndarray, "replicate way scorer measure"]:
    """Return the mean over the concepts whose judge is interpretable; NaN without any."""
    counted = able[:, None, None, :, None]
    total, n = np.where(counted, ratios, 0).sum(axis=0), counted.sum(axis=0)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
