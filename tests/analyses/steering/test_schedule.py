"""Schedules against their formulas."""

import numpy as np
import pytest

from analyses.steering.schedule import stretches, weights
from cache.errors import UserError
from tests.tolerances import assert_close

SIGMAS = (1.0, 0.9, 0.5, 0.2, 0.1)


@pytest.mark.parametrize(
    ("schedule", "over", "expected"),
    [
        ("constant", "steps", [1, 1, 1, 1, 1]),
        ("linear", "steps", [1, 0.8, 0.6, 0.4, 0.2]),
        ("linear", "sigmas", SIGMAS),
        ("cosine", "steps", (1 + np.cos(np.pi * np.arange(5) / 5)) / 2),
        ("cosine", "sigmas", (1 + np.cos(np.pi * (1 - np.array(SIGMAS)))) / 2),
        ("early", "steps", [1, 1, 0, 0, 0]),
        ("early", "sigmas", [1, 1, 0, 0, 0]),
        ("late", "steps", [0, 0, 0, 1, 1]),
        ("late", "sigmas", [0, 0, 0, 1, 1]),
        ([0.0, -1.0, 2.5, 0.0, 1.0], "steps", [0, -1, 2.5, 0, 1]),
        ("0,-1,2.5, 0,1", "steps", [0, -1, 2.5, 0, 1]),
    ],
)
def test_weights_of_steps(schedule, over, expected) -> None:
    assert_close(weights(schedule, SIGMAS, over), np.array(expected, dtype=float))


def test_early_and_late_are_four_tenths_of_the_steps() -> None:
    thirty = np.linspace(1, 0.01, 30).tolist()
    assert np.flatnonzero(weights("early", thirty)).tolist() == list(range(12))
    assert np.flatnonzero(weights("late", thirty)).tolist() == list(range(18, 30))


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("quadratic", "Unknown schedule 'quadratic'"),
        ("1,1,x,1,1", "must be numbers"),
        ("1,1", "finite weight"),
        ([1.0, 1.0], "each of the 5 steps"),
        ([1.0, 1.0, 1.0, 1.0, float("nan")], "finite weight"),
        (["a"] * 5, "must be numbers"),
        (None, "must be one of"),
    ],
)
def test_what_is_no_schedule(schedule, words: str) -> None:
    with pytest.raises(UserError, match=words):
        weights.__wrapped__(schedule, SIGMAS)  # without the type check, which users do not have


def test_steps_of_equal_strength_are_one_window() -> None:
    assert stretches([0.5, 0.5, 0.0, 0.5, -1.0]) == [((0, 1), 0.5), ((3, 3), 0.5), ((4, 4), -1.0)]
    assert stretches([0.0, 0.0]) == stretches([]) == []


@pytest.mark.parametrize("schedule", ["constant", "1,1,1,0,0", [1.0, 1.0, 1.0, 0.0, 0.0]])
def test_only_curves_by_name_follow_sigmas(schedule) -> None:
    with pytest.raises(UserError, match="follow sigmas"):
        weights(schedule, SIGMAS, "sigmas")
