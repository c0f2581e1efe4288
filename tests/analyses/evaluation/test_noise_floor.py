"""The noise floor: mean sizes of changes, and differences between seeds, by hand."""

import numpy as np
import xarray as xr

from analyses.evaluation.noise_floor import change_sizes, seed_changes, seed_distances
from analyses.evaluation.replicates import Replicates
from tests.tolerances import assert_close

REPLICATES = Replicates(3, resamples=50)


def test_sizes_of_changes_have_no_direction() -> None:
    change = xr.DataArray(
        [[[[1.0]], [[-3.0]]], [[[-2.0]], [[2.0]]], [[[np.nan]], [[0.0]]]],
        dims=("pair", "seed", "arm", "scorer"),
    )
    found = change_sizes(change, REPLICATES)
    assert_close(found.change_size, [[8 / 5]])
    assert found.change_size_lo < 8 / 5 < found.change_size_hi


def test_unsteered_clips_of_all_pairs_of_seeds_are_compared() -> None:
    score = np.array([[0.0, 1.0, 3.0], [1.0, 1.0, 1.0], [5.0, np.nan, 2.0]])
    labelled = xr.DataArray(score[:, :, None, None], {"arm": ["corrupt"]}, ("pair", "seed", "arm", "scorer"))
    assert_close(seed_changes(labelled, REPLICATES).seed_change, [(1 + 3 + 2 + 0 + 0 + 0 + 3) / 7])
    assert seed_changes(labelled[:, :1], REPLICATES).seed_change.isnull().all()


def test_distances_between_seeds_are_averaged() -> None:
    apart = xr.DataArray([[[1.0, 2.0], [3.0, np.nan], [6.0, 6.0]]], dims=("measure", "pair", "seed"))
    assert_close(seed_distances(apart, REPLICATES).seed_distance, [18 / 5])
