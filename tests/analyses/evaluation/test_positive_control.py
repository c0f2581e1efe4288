"""The positive control: judges that hear, that hear nothing, and that hear too little."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest

from analyses.evaluation.positive_control import NO_SCORES, TOO_OFTEN_WRONG, positive_control
from analyses.evaluation.replicates import Replicates
from analyses.steering.checks import NOT_INTERPRETABLE, TOO_FEW
from benchmarks.evaluation_simulations import found_interpretable
from tests.tolerances import assert_close

RESAMPLES = 400


def score_of(differences: np.ndarray) -> xr.DataArray:
    """Scores whose differences between the real prompts are given, by (pair, scorer)."""
    values = np.stack([differences, np.zeros_like(differences)], axis=1)[:, None]
    coords = {"arm": ["clean", "corrupt"], "scorer": np.arange(differences.shape[1])}
    return xr.DataArray(values, coords, ("pair", "seed", "arm", "scorer"))


def test_the_verdict_and_its_reasons() -> None:
    hears = np.linspace(0.5, 1.5, 16)
    noise = np.tile([1.0, -1.0], 8)
    barely = np.where(np.arange(16) < 11, 1.0, -0.2)  # the interval is above 0, but only 11 of 16 are right
    none = np.full(16, np.nan)
    found = positive_control(score_of(np.column_stack([hears, noise, barely, none])), Replicates(16))
    assert found.reason.values.tolist() == ["", NOT_INTERPRETABLE, TOO_OFTEN_WRONG, NO_SCORES]
    assert found.interpretable.values.tolist() == [True, False, False, False]
    assert found.control_lo.values[2] > 0
    assert_close(found.control.values[:3], [1.0, 0.0, (11 - 1) / 16])
    for scorer, right in enumerate((16, 8, 11)):
        wilson = binomtest(right, 16).proportion_ci(method="wilson")
        shares = [found[f"control_share{end}"].values[scorer] for end in ("", "_lo", "_hi")]
        assert_close(shares, [right / 16, wilson.low, wilson.high])
    few = positive_control(score_of(hears[:5, None]), Replicates(5))
    assert few.reason.values.tolist() == [TOO_FEW]


def test_where_positive_prompts_are_steered_the_real_ones_are_negative() -> None:
    away = -np.linspace(0.5, 1.5, 8)[:, None]
    assert positive_control(score_of(away), Replicates(8), towards=-1).interpretable.all()
    assert not positive_control(score_of(away), Replicates(8)).interpretable.any()


def test_ties_count_half_and_a_constant_judge_hears_nothing() -> None:
    found = positive_control(score_of(np.zeros((8, 1))), Replicates(8))
    assert found.control_share.values == 0.5
    assert not found.interpretable.any()


@pytest.mark.parametrize("pairs", [6, 32])
def test_a_judge_that_hears_nothing_is_found_out(pairs: int) -> None:
    assert found_interpretable(pairs, 0.0, 1000, RESAMPLES) <= 0.05


def test_one_that_hears_well_is_believed_and_one_that_hardly_does_is_not() -> None:
    assert found_interpretable(16, 2.0, 200, RESAMPLES) >= 0.99
    assert found_interpretable(64, 0.385, 200, RESAMPLES) <= 0.15  # 65 % of pairs right
