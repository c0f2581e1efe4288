"""Fréchet distances of sets whose means and covariances are known exactly."""

import logging

import numpy as np
import pytest
from scipy.linalg import sqrtm

from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.scorers.frechet import extrapolated_frechet_distance, frechet_distance


def sample(mean: np.ndarray, covariance: np.ndarray, clips: int = 50, seed: int = 0) -> np.ndarray:
    """Embeddings (clip, dim) whose sample mean and covariance are these."""
    drawn = np.random.default_rng(seed).standard_normal((clips, len(mean)))
    drawn -= drawn.mean(axis=0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(drawn.T)))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_one_dimension_is_the_difference_of_means_and_of_deviations() -> None:
    one = sample(np.array([1.0]), np.array([[4.0]]))
    other = sample(np.array([4.0]), np.array([[9.0]]), clips=30, seed=1)
    assert_close(frechet_distance(one, other), 3.0**2 + 1.0**2)


def test_independent_dimensions_add_up() -> None:
    one = sample(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    other = sample(np.array([0.0, 2, 0]), np.diag([4.0, 4.0, 1.0]), seed=1)
    assert_close(frechet_distance(one, other), 1 + 2.0**2 + 4)


def test_dependent_dimensions_are_those_of_the_formula_both_ways() -> None:
    random = np.random.default_rng(2)
    roots = random.standard_normal((2, 4, 4))
    first, second = (root @ root.T for root in roots)
    means = random.standard_normal((2, 4))
    expected = np.square(means[0] - means[1]).sum() + np.trace(
        first + second - 2 * sqrtm(first @ second).real
    )
    one, other = sample(means[0], first), sample(means[1], second, clips=40, seed=1)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert_close(frechet_distance(other, one), frechet_distance(one, other))


def test_fewer_clips_than_dimensions_are_the_same_set_and_as_far_when_moved() -> None:
    clips = np.random.default_rng(0).standard_normal((5, 16))
    assert_close(frechet_distance(clips, clips) + 1, 1.0)
    assert_close(frechet_distance(clips + 2, clips), 16 * 2.0**2)


def test_small_sets_are_too_far_by_the_bias_that_is_stated_and_the_extrapolation_is_not() -> None:
    dims, clips = 8, 256
    reference = sample(np.zeros(dims), np.eye(dims), clips=2000)
    sets = np.random.default_rng(3).standard_normal((12, clips, dims))
    raw = np.mean([frechet_distance(one, reference) for one in sets])
    extrapolated = np.mean([extrapolated_frechet_distance(one, reference) for one in sets])
    assert raw == pytest.approx(dims * (dims + 5) / 4 / clips, rel=0.15)
    assert abs(extrapolated) < raw / 4


def test_an_extrapolation_leaves_a_true_distance_and_is_repeatable() -> None:
    reference = sample(np.zeros(4), np.eye(4), clips=1000)
    moved = np.random.default_rng(1).standard_normal((400, 4)) + 1
    found = extrapolated_frechet_distance(moved, reference)
    assert found == pytest.approx(4, rel=0.1)
    assert_close(extrapolated_frechet_distance(moved, reference), found)


def test_clips_without_embedding_leave_no_number(caplog: pytest.LogCaptureFixture) -> None:
    clips = np.random.default_rng(0).standard_normal((20, 3))
    broken = clips.copy()
    broken[3, 1] = np.nan
    with caplog.at_level(logging.ERROR):
        assert np.isnan(frechet_distance(clips, broken))
        assert np.isnan(extrapolated_frechet_distance(broken, clips))
    assert caplog.records[0].getMessage() == "No Fréchet distance: 1 of 20 clips have no embedding."


def test_too_few_clips_are_refused() -> None:
    clips = np.zeros((7, 3))
    with pytest.raises(UserError, match="at least 2 clips in each set; got 7 and 1"):
        frechet_distance(clips, clips[:1])
    with pytest.raises(UserError, match="at least 8 clips; got 7"):
        extrapolated_frechet_distance(clips, clips)
