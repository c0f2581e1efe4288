"""Leakage: what steering one concept does to the others, in units of what their own prompts do."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.curve_summaries import control_of
from analyses.evaluation.dose_curves import TrialMeans, trial_means, ways_of
from analyses.evaluation.equal_distance import common_distances, place_at, value_at
from analyses.evaluation.positive_control import positive_control
from analyses.evaluation.replicates import Replicates


def leakage(trials: Mapping[str, xr.Dataset], means: Mapping[str, TrialMeans]) -> xr.Dataset:
    """Compute the change of every concept's score when each is steered, as a part of its own real prompts' difference.

    Taken is the distance at which ways of steering are compared (`common_distances`). A concept other than the steered
    one is scored for the value that the steered prompt has: below 0, it loses that. The diagonal is the ratio of the
    steered concept itself.

    Args:
        trials: the trial of each concept, in which the others are judged, too.
        means: their means, from independent replicates.

    Returns:
        By (concept, judged, way, sign, scorer, measure): `leakage`, `leakage_lo`, `leakage_hi`, from a bootstrap over
        the pairs of both trials. NaN where the judge is not interpretable for the judged concept.
    """
    names = list(trials)
    ways = list(dict.fromkeys(way for trial in trials.values() for way in ways_of(trial)))
    first = next(iter(trials.values()))
    coords = {
        "concept": names,
        "judged": names,
        "way": ways,
        "sign": list(SIGNS),
        "scorer": first.scorer.values,
        "measure": first.measure.values,
    }
    shape = [len(labels) for labels in coords.values()]
    ends = ("leakage", "leakage_lo", "leakage_hi")
    found = xr.Dataset({name: (tuple(coords), np.full(shape, np.nan)) for name in ends}, coords)
    for judged, trial in trials.items():
        control = positive_control(trial.score.sel(concept=judged, drop=True), means[judged].replicates)
        for concept in names:
            if judged not in trials[concept].concept.values:
                continue
            of_ways = _of_trial(trials[concept], means[concept], judged, means[judged])
            for (way, sign), interval in of_ways.items():
                for name, values in zip(ends, interval, strict=True):
                    hidden = np.where(control.interpretable.values[:, None], values, np.nan)
                    found[name].loc[concept, judged, way, sign] = hidden
    return found


def _of_trial(
    trial: xr.Dataset, own: TrialMeans, judged: str, judged_own: TrialMeans
) -> dict[tuple[str, str], tuple[np.ndarray, ...]]:
    """Return the leakage of each way and sign of a trial to one concept, with its interval."""
    curves = own.curves(ways_of(trial))
    distances = common_distances(curves)
    of_judged = trial_means(trial, own.replicates, judged)
    control = _aligned(judged_own, own.replicates)
    found = {}
    for (way, sign), curve in curves.items():
        other = of_judged.curve(way, sign)
        assert other is not None  # the same arms
        # Of another concept, + is not the sign's direction but more of its own value.
        change = other.change if judged == trial.attrs["concept"] else SIGNS[sign] * other.change
        moved = value_at(change, place_at(curve.distance, distances[sign]))
        part = moved / np.where(control > 0, control, np.nan)[..., None]
        n = np.minimum(other.n[:, None], curve.n_distance)
        found[way, sign] = tuple(own.replicates.interval(part, n, corrected=False))
    return found


def _aligned(means: TrialMeans, replicates: Replicates) -> Float[np.ndarray, "replicate scorer"]:
    """Return the positive control of a trial in replicates of another one's pairs.

    The samples without a pair are those of the other trial: this one is whole there.
    """
    control = control_of(means)
    if means.replicates is replicates:
        return control
    n, n_own = replicates.weights.shape[1], means.replicates.weights.shape[1]
    return np.concatenate([np.repeat(control[:1], 1 + n, axis=0), control[1 + n_own :]])
