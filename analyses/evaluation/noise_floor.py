"""The noise floor: how much scores differ between clips that should be alike."""

import numpy as np
import xarray as xr

from analyses.evaluation.replicates import Replicates
from analyses.steering.effects import UNSTEERED


def change_sizes(change: xr.DataArray, replicates: Replicates) -> xr.Dataset:
    """Return the mean size of each arm's changes, whatever their direction, by arm and scorer, with intervals.

    That of an arm at a tiny strength (role "floor") is what a clip changes by for no reason; so is its `distance`.

    Args:
        change: changes from the unsteered run, with dims pair, seed, arm and scorer.
        replicates: of the pairs.
    """
    size = abs(change).transpose("pair", "seed", "arm", "scorer")
    n = size.notnull().any("seed").sum("pair").values
    found = replicates.interval(replicates.means(size.values), n)
    return xr.Dataset(found.named("change_size", "arm", "scorer"))


def seed_distances(apart: xr.DataArray, replicates: Replicates) -> xr.Dataset:
    """Return the mean distance between unsteered clips of a prompt with other seeds, by measure, with its interval.

    Args:
        apart: distances with dims measure, pair and seed, NaN with one seed.
        replicates: of the pairs.
    """
    values = apart.transpose("pair", "seed", "measure").values
    n = (~np.isnan(values)).any(axis=1).sum(axis=0)
    return xr.Dataset(replicates.interval(replicates.means(values), n).named("seed_distance", "measure"))


def seed_changes(score: xr.DataArray, replicates: Replicates) -> xr.Dataset:
    """Return the mean difference, without sign, between two seeds' unsteered clips of a prompt; NaN with one seed.

    Args:
        score: scores of one concept, with dims pair, seed, arm and scorer.
        replicates: of the pairs.
    """
    unsteered = score.sel(arm=UNSTEERED, drop=True).transpose("pair", "seed", "scorer").values
    one, other = np.triu_indices(unsteered.shape[1], k=1)
    apart = np.abs(unsteered[:, one] - unsteered[:, other])
    n = (~np.isnan(apart)).any(axis=1).sum(axis=0)
    return xr.Dataset(replicates.interval(replicates.means(apart), n).named("seed_change", "scorer"))
