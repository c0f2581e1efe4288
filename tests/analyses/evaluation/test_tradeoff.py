"""On-target, preservation and quality of arms, and their harmonic mean: by hand."""

import numpy as np
import pytest
import xarray as xr

from analyses.evaluation.dose_curves import trial_means
from analyses.evaluation.replicates import Replicates
from analyses.evaluation.tradeoff import harmonic_mean, tradeoff
from tests.analyses.evaluation.simulated_trial import simulated_trial
from tests.tolerances import assert_close


def found(trial: xr.Dataset, quality: xr.DataArray | None = None) -> xr.Dataset:
    means = trial_means(trial, Replicates(trial.sizes["pair"], resamples=50))
    labelled = tradeoff(means, quality).assign_coords(
        arm=trial["arm"], measure=trial.measure, scorer=trial.scorer
    )
    return labelled.sel(measure="mel", scorer="one")


def test_each_is_a_part_of_what_the_real_prompt_does() -> None:
    trial = simulated_trial(noise=0.0, strengths=(-1.0, 1.0, 4.0))
    parts = found(trial)
    assert_close(
        parts.on_target.sel(arm=["clean", "strong × 1", "strong × 4"]), [1.0, 0.4, 1.0]
    )  # 1.6 is all
    assert_close(parts.on_target.sel(arm="strong × -1"), 0.4)  # its own way
    # The distance is .5 per unit of strength, and 2 for the real prompt.
    assert_close(
        parts.preservation.sel(arm=["corrupt", "strong × 1", "strong × 4", "clean"]), [1.0, 0.75, 0.0, 0.0]
    )
    assert_close(parts.harmonic.sel(arm="strong × 1"), 2 / (1 / 0.4 + 1 / 0.75))
    assert parts.harmonic.sel(arm="strong × 4") == 0
    assert parts.quality.isnull().all()


def test_quality_is_a_part_of_the_unsteered_clips_and_counts() -> None:
    trial = simulated_trial(noise=0.0)
    known = xr.full_like(trial.distance.isel(measure=0, drop=True), 4.0)
    known.loc[{"arm": "strong × 1"}] = 3.0
    parts = found(trial, known).sel(arm="strong × 1")
    assert_close(parts.quality, 0.75)
    assert_close(parts.harmonic, 3 / (1 / 0.4 + 1 / 0.75 + 1 / 0.75))


def test_a_part_of_nothing_is_unknown() -> None:
    trial = simulated_trial(noise=0.0, judges={"one": 0.0})
    trial["score"] = xr.zeros_like(trial.score)
    assert found(trial).on_target.isnull().all()


@pytest.mark.parametrize(("parts", "mean"), [((0.5, 0.5), 0.5), ((1.0, 0.0), 0.0), ((0.2, 0.6), 0.3)])
def test_the_harmonic_mean(parts: tuple[float, float], mean: float) -> None:
    assert_close(harmonic_mean(*(np.full((1, 1), part) for part in parts))[0, 0], mean)
