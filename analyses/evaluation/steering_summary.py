"""The strict summary of a trial of ways of steering: every number with its interval, and none of a deaf judge.

Intervals are of 95 %, by a paired bootstrap over whole pairs. How each number is computed and why:
`docs/steering-benchmark.md`.
"""

import numpy as np
import xarray as xr

from analyses.evaluation.curve_summaries import curve_summaries
from analyses.evaluation.dose_curves import TrialMeans, paired_means, score_changes, trial_means
from analyses.evaluation.noise_floor import change_sizes, seed_changes, seed_distances
from analyses.evaluation.positive_control import positive_control
from analyses.evaluation.replicates import CONFIDENCE, Replicates
from analyses.evaluation.strength_selection import selected, selection_warnings
from analyses.evaluation.tradeoff import tradeoff
from analyses.statistics import CLUSTER_RESAMPLES

OF_CONTROL = ("control", "control_lo", "control_hi", "control_share", "control_share_lo", "control_share_hi")


def summarise(
    trial: xr.Dataset,
    selection: xr.Dataset | None = None,
    resamples: int = CLUSTER_RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Summarise what ways of steering do to their own concept, with intervals.

    Args:
        trial: result of `run_steering` with distances and, if clips have one, `quality` (pair, seed, arm; see
            `tradeoff`).
        selection: a trial of the same ways on other prompts, by which the strength of each way is chosen; without it,
            the strength is chosen on the reported prompts.
        resamples: number of resamples of the pairs.
        seed: seed of the resamples.

    Returns:
        The summaries, by way, sign (of the trial's strengths), scorer, measure or arm. Those of a judge that is not
        `interpretable` are NaN, with the `reason` (scorer). The attribute `warnings` has a sentence a line on what
        makes numbers look too good.
    """
    replicates = Replicates(trial.sizes["pair"], resamples, seed)
    means = trial_means(trial, replicates)
    of_arms = arm_summaries(trial, means)
    chooser = of_arms
    if selection is not None:
        of_selection = trial_means(selection, Replicates(selection.sizes["pair"], resamples, seed))
        chooser = arm_summaries(selection, of_selection)
    curves = curve_summaries(trial, means, of_arms.interpretable.values)
    score = trial.score.sel(concept=trial.attrs["concept"], drop=True)
    floor = [seed_changes(score, replicates), seed_distances(trial.seed_distance, replicates)]
    chosen = selected(trial, of_arms, chooser)
    found = xr.merge([of_arms, curves, chosen, *floor], join="exact", compat="override")
    found = _of_interpretable(found).assign(n_pairs=trial.sizes["pair"], n_seeds=trial.sizes["seed"])
    warnings = selection_warnings(trial, selection, chosen)
    found.attrs = {
        "concept": trial.attrs["concept"],
        "confidence": CONFIDENCE,
        "warnings": "\n".join(warnings),
    }
    return found


def arm_summaries(trial: xr.Dataset, means: TrialMeans) -> xr.Dataset:
    """Return the positive control, and of each arm effect, ratio to the real prompt, distance, floor and trade-off."""
    replicates, n = means.replicates, means.n_change.values
    score = trial.score.sel(concept=trial.attrs["concept"], drop=True)
    part, real, n_ratio = paired_means(means.changes, "clean", replicates)
    control = means.towards * real
    ratio = means.signs[:, None] * part / np.where(control > 0, control, np.nan)
    variables = {
        **replicates.interval(means.change.values, n).named("effect", "arm", "scorer"),
        **replicates.interval(ratio, n_ratio).named("ratio", "arm", "scorer"),
        **replicates.interval(means.distance.values, means.n_distance.values).named(
            "distance", "arm", "measure"
        ),
        "n": (("arm", "scorer"), n),
        "n_ratio": (("arm", "scorer"), n_ratio),
        "n_distance": (("arm", "measure"), means.n_distance.values),
    }
    labels = means.change.isel(replicate=0, drop=True).coords
    found = xr.Dataset(variables, {**labels, "measure": trial.measure.values})
    sizes = change_sizes(score_changes(trial).sel(concept=trial.attrs["concept"], drop=True), replicates)
    return found.assign(
        {
            **sizes,
            **tradeoff(means, trial.get("quality")),
            **positive_control(score, replicates, means.towards),
        }
    )


def _of_interpretable(found: xr.Dataset) -> xr.Dataset:
    """Return the summaries with NaN in place of all numbers of judges that are not interpretable."""
    hidden = [
        name
        for name, values in found.data_vars.items()
        if "scorer" in values.dims and values.dtype.kind == "f" and name not in OF_CONTROL
    ]
    return found.assign({name: found[name].where(found.interpretable) for name in hidden})
