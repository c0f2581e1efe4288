"""Leakage: what steering one concept does to the others, in units of what their own prompts do."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.dose_curves import TrialMeans, trial_means, ways_of
from analyses.evaluation.equal_distance import common_distances, place_at, value_at
from analyses.evaluation.positive_control import positive_control
from analyses.evaluation.replicates import Interval, Replicates


def leakage(trials: Mapping[str, xr.Dataset], means: Mapping[str, TrialMeans], sign: str) -> xr.Dataset:
    """Compute the change of every concept's score when each is steered, as a part of its own real prompts' difference.

    Taken is the distance at which ways of steering are compared (`common_distances`). A concept other than the steered
    one is scored for the value that the steered prompt has: below 0, it loses that. The diagonal is the ratio of the
    steered concept itself.

    Args:
        trials: the trial of each concept, in which the others are judged, too.
        means: their means, from independent replicates.
        sign: of the strengths.

    Returns:
        By (concept, judged, way, scorer, measure): `leakage`, `leakage_lo`, `leakage_hi`, from a bootstrap over the
        pairs of both trials. NaN where the judge is not interpretable for the judged concept.
    """
    names = list(trials)
    first = next(iter(trials.values()))
    coords = {
        "concept": names,
        "judged": names,
        "way": list(dict.fromkeys(way for trial in trials.values() for way in ways_of(trial))),
        "scorer": first.scorer.values,
        "measure": first.measure.values,
    }
    shape = [len(labels) for labels in coords.values()]
    ends = ("leakage", "leakage_lo", "leakage_hi")
    found = xr.Dataset({name: (tuple(coords), np.full(shape, np.nan)) for name in ends}, coords)
    for judged, trial in trials.items():
        own = means[judged]
        score = trial.score.sel(concept=judged, drop=True)
        able = positive_control(score, own.replicates, own.towards).interpretable.values
        for concept in names:
            if judged in trials[concept].concept.values:
                for way, interval in _of_trial(trials[concept], means[concept], judged, own, sign).items():
                    for name, values in zip(ends, interval, strict=True):
                        found[name].loc[concept, judged, way] = np.where(able[:, None], values, np.nan)
    return found


def _of_trial(
    trial: xr.Dataset, own: TrialMeans, judged: str, judged_own: TrialMeans, sign: str
) -> dict[str, Interval]:
    """Return the leakage of each way of a trial to one concept, with its interval."""
    curves = own.curves(ways_of(trial))
    distance = common_distances(curves, own.real_distance)[sign].values
    of_judged = trial_means(trial, own.replicates, judged)
    control = _aligned(judged_own, own.replicates)
    # Of another concept, + is not the sign's direction but more of its own value.
    turned = 1 if judged == trial.attrs["concept"] else SIGNS[sign]
    found = {}
    for (way, of_way), other in of_judged.curves(ways_of(trial)).items():
        if of_way == sign:
            curve = curves[way, sign]
            moved = turned * value_at(other.change, place_at(curve.distance, distance))
            part = moved / np.where(control > 0, control, np.nan)[..., None]
            n = np.minimum(other.n[:, None], curve.n_distance)
            found[way] = own.replicates.interval(part, n, corrected=False)
    return found


def _aligned(means: TrialMeans, replicates: Replicates) -> Float[np.ndarray, "replicate scorer"]:
    """Return the positive control of a trial in replicates of another one's pairs.

    The samples without a pair are those of the other trial: this one is whole there.
    """
    control = means.control
    if means.replicates is replicates:
        return control
    n, n_own = replicates.weights.shape[1], means.replicates.weights.shape[1]
    return np.concatenate([np.repeat(control[:1], 1 + n, axis=0), control[1 + n_own :]])
