"""Slopes of dose-response curves: the closed form of balanced designs, fits that fail, and coverage."""

import numpy as np
import pytest
from scipy.optimize import differential_evolution

from analyses.evaluation.replicates import Replicates
from analyses.evaluation.slopes import CONVERGED, SINGULAR, TOO_FEW, mixed_slope, ols_slope
from benchmarks.evaluation_simulations import DOSES as STRENGTHS
from benchmarks.evaluation_simulations import Slopes, alike, coverage, even, skewed
from benchmarks.evaluation_simulations import scores as simulated
from tests.tolerances import OPTIMISED, assert_close, difference

FITTED = 10 * OPTIMISED
"""Variances are flat near their optimum: measured were 4e-5."""
RESAMPLES = 400
DOSES = np.array([0.0, 1.0, 2.5, 4.0])


def scores(seeds: int = 2) -> np.ndarray:
    """Scores (pair, seed, dose) of 6 pairs with slopes of their own."""
    rng = np.random.default_rng(0)
    slopes = 0.5 + 0.4 * rng.normal(size=(6, 1, 1))
    return rng.normal(size=(6, seeds, 1)) + slopes * DOSES + 0.1 * rng.normal(size=(6, seeds, len(DOSES)))


def of_pairs(score: np.ndarray) -> np.ndarray:
    """Each pair's own slope, by least squares."""
    return np.polyfit(DOSES, score.mean(axis=1).T, 1)[0]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_balanced_design_has_the_mean_of_the_pairs_slopes_and_its_standard_error(seeds: int) -> None:
    """REML of a balanced design is the analysis of variance: the pairs' slopes are a simple sample."""
    score = scores(seeds)
    slopes = of_pairs(score)
    found = mixed_slope(DOSES, score)
    assert found.status == CONVERGED
    assert difference(found.value, slopes.mean()) < OPTIMISED
    error = slopes.std(ddof=1) / np.sqrt(6)
    assert difference(found.standard_error, error) < FITTED
    assert difference(found.high - found.value, 2.5705818 * error) < FITTED  # t of 5 degrees of freedom


@pytest.mark.parametrize("design", [even, skewed])
def test_every_fit_that_converged_has_the_standard_error_of_the_pairs_slopes(design: Slopes) -> None:
    rng = np.random.default_rng(2)
    score = simulated(rng, design(rng, 6, 12), 2)
    fits = [(mixed_slope(STRENGTHS, one), one) for one in np.moveaxis(score, -1, 0)]
    converged = [(found, one) for found, one in fits if found.status == CONVERGED]
    assert len(converged) > 6
    for found, one in converged:
        slopes = np.polyfit(STRENGTHS, one.mean(axis=1).T, 1)[0]
        assert difference(found.standard_error, slopes.std(ddof=1) / np.sqrt(6)) < FITTED


def restricted(deviations: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Restricted log-likelihood, up to a constant, and the slope's standard error; Pinheiro & Bates (2000), 2.2.5.

    `deviations` are relative to the residual's: Cholesky factor of the pairs' intercepts and slopes (3), seeds (1).
    """
    pairs, seeds, doses = score.shape
    of_pair = np.tile(np.column_stack([np.ones(doses), DOSES]), (seeds, 1))
    factor = np.array([[deviations[0], 0.0], [deviations[1], deviations[2]]])
    of_seed = np.kron(np.eye(seeds), np.ones((doses, doses)))
    covariance = (
        np.eye(seeds * doses) + of_pair @ factor @ factor.T @ of_pair.T + deviations[3] ** 2 * of_seed
    )
    weight = np.linalg.inv(covariance)
    rows = score.reshape(pairs, -1)
    information = pairs * of_pair.T @ weight @ of_pair
    line = np.linalg.solve(information, of_pair.T @ weight @ rows.sum(axis=0))
    left = rows - of_pair @ line
    residual = np.einsum("pi,ij,pj", left, weight, left) / (rows.size - 2)
    determinants = pairs * np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1]
    likelihood = -((rows.size - 2) * np.log(residual) + determinants) / 2
    return likelihood, float(np.sqrt(residual * np.linalg.inv(information)[1, 1]))


@pytest.mark.parametrize(("seed", "status"), [(0, CONVERGED), (1, SINGULAR), (5, SINGULAR), (23, SINGULAR)])
def test_the_likelihood_is_the_highest_that_a_global_search_finds(seed: int, status: str) -> None:
    """Where components of the variance are near 0, methods that follow the gradient stop short of it."""
    rng = np.random.default_rng(seed)
    level = 0.2 * rng.normal(size=(6, 1, 1)) + 0.2 * rng.normal(size=(6, 2, 1))
    slope = 1 + 0.1 * rng.normal(size=(6, 1, 1))
    score = level + slope * DOSES + 0.3 * rng.normal(size=(6, 2, len(DOSES)))
    bounds = [(0, 9), (-9, 9), (0, 9), (0, 9)]
    best = differential_evolution(
        lambda deviations: -restricted(deviations, score)[0], bounds, rng=0, tol=1e-9
    )
    found = mixed_slope(DOSES, score)
    assert found.status == status
    assert difference(found.standard_error, restricted(best.x, score)[1]) < FITTED


def test_the_slope_is_per_unit_of_strength_and_of_the_score() -> None:
    once, scaled = mixed_slope(DOSES, scores(1)), mixed_slope(10 * DOSES, 3 * scores(1) + 7)
    assert difference(scaled.value, 0.3 * once.value) < OPTIMISED
    assert difference(scaled.standard_error, 0.3 * once.standard_error) < FITTED


def test_missing_scores_are_left_out() -> None:
    score = scores()
    score[0] = np.nan
    found, without = mixed_slope(DOSES, score), mixed_slope(DOSES, score[1:])
    assert (found.value, found.standard_error) == (without.value, without.standard_error)


def test_a_fit_that_cannot_be_trusted_says_so() -> None:
    rng = np.random.default_rng(1)
    alike = rng.normal(size=(6, 1, 1)) + DOSES + rng.normal(size=(6, 1, 1)) * np.array([1.0, -1, -1, 1])
    assert mixed_slope(DOSES, alike).status == SINGULAR  # slopes do not differ between pairs
    assert mixed_slope(DOSES, np.ones((6, 2, 4))).status == SINGULAR
    assert mixed_slope(DOSES, scores()[:2]).status == TOO_FEW
    assert np.isnan(mixed_slope(DOSES, np.full((6, 1, 4), np.nan)).value)


@pytest.mark.parametrize("seed", [13, 20, 49])
def test_a_singular_fit_has_no_absurd_standard_error(seed: int) -> None:
    """Slopes and levels of pairs do not differ: their covariance cannot be inverted."""
    found = mixed_slope(DOSES, DOSES + 0.3 * np.random.default_rng(seed).normal(size=(6, 2, len(DOSES))))
    assert found.status == SINGULAR
    assert not found.standard_error > 0.1


def test_the_bootstrap_agrees_with_the_mixed_model() -> None:
    score = scores()
    replicates = Replicates(6, RESAMPLES)
    found = replicates.interval(ols_slope(DOSES, replicates.means(score)[..., None]), 6)
    mixed = mixed_slope(DOSES, score)
    assert_close(found.value[0], of_pairs(score).mean())
    assert (found.high - found.low)[0] == pytest.approx(mixed.high - mixed.low, rel=0.3)


@pytest.mark.parametrize(("pairs", "seeds"), [(8, 2), (16, 1)])
def test_intervals_of_slopes_cover_the_planted_one(pairs: int, seeds: int) -> None:
    assert coverage(even, pairs, seeds, 1500, RESAMPLES) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("design", "pairs"), [(even, 6), (alike, 6), (skewed, 8)])
def test_student_s_intervals_cover_it_with_few_pairs(design: Slopes, pairs: int) -> None:
    assert coverage(design, pairs, 1, 4000, 1, student=True) == pytest.approx(0.95, abs=0.02)
