"""The edits of a vector: which direction, how strong, at which steps and in which passes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from analyses.steering.directions import labelled
from analyses.steering.examples import Example
from analyses.steering.reliability import reliability
from analyses.steering.vector import PASS_MODES, Vector
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.engine.settings import GenerationSettings
from workbench.models.sampling import Sampling

SITE = "tf1.cross_attn"
SIGMAS = (1.0, 0.75, 0.5)
LENGTHS = {"cond": 3.0, "null": 5.0}


def vector_of(values: np.ndarray, passes: tuple[str, ...] = ("cond", "null")) -> Vector:
    return Vector(
        method="caa",
        concept="mood",
        positive="happy",
        negative="sad",
        directions={SITE: labelled(values, SITE, passes, SIGMAS)},
        unit="a mean difference",
        model={"model": "tiny", "weights_hash": "ab"},
        settings=GenerationSettings(duration=1.0, num_steps=len(SIGMAS)),
        sampling=sampling_of([passes] * len(SIGMAS)),
        examples=examples_of(4),
        reliability=reliability({SITE: np.zeros((1, *values.shape))}, passes, 4),
    )


def sampling_of(passes: Sequence[tuple[str, ...]]) -> Sampling:
    """Sampling with these passes in its steps."""
    return Sampling(
        architecture="tiny",
        scheduler="Euler",
        guidance_scale=3.0,
        passes=tuple(passes),
        options={"shift": 3.0},
        adapters=(),
    )


def examples_of(n_pairs: int) -> tuple[Example, ...]:
    """Pairs of a happy and a sad prompt."""
    return tuple(
        Example(prompt=f"a {value} song {pair}", lyrics="", seed=pair, value=value, pair=pair)
        for pair in range(n_pairs)
        for value in ("happy", "sad")
    )


@pytest.fixture
def vector() -> Vector:
    """Directions along the first two channels, three long in the cond pass and five in the null pass."""
    values = np.zeros((2, len(SIGMAS), 4))
    values[0, :, 0], values[1, :, 1] = LENGTHS.values()
    return vector_of(values)


def added(vector: Vector, strength: float, **options: Any) -> dict[tuple[int, str], np.ndarray]:
    """What is added by step and pass."""
    edits = vector.at(strength, **options)
    return {
        (edit.window.steps[0], edit.window.passes[0]): edit.parameters.strength
        * edit.parameters.vector.value.numpy()
        for edit in edits
    }


@pytest.mark.parametrize(("mode", "expected"), PASS_MODES.items())
def test_each_mode_steers_its_passes_with_their_directions(vector: Vector, mode: str, expected: Any) -> None:
    found = added(vector, 2.0, passes=mode)
    assert set(found) == {(step, acting) for step in range(3) for acting in expected}
    for (_, acting), value in found.items():
        own = expected[acting]
        assert value.tolist() == [
            2 * LENGTHS["cond"] * (own == "cond"),
            2 * LENGTHS["null"] * (own == "null"),
            0,
            0,
        ]


def test_a_direction_of_length_1_is_added_if_asked(vector: Vector) -> None:
    for value in added(vector, -2.0, unit="norm", passes="separate").values():
        assert np.linalg.norm(value) == pytest.approx(2.0)
        assert value.sum() < 0
    assert vector.norms[SITE].values.tolist() == [[3.0] * 3, [5.0] * 3]


def test_the_norm_of_directions_by_token_is_their_root_mean_square() -> None:
    values = np.zeros((1, len(SIGMAS), 2, 4))
    values[0, :, 0, 0], values[0, :, 1, 1] = 1.0, 7.0
    by_token = vector_of(values, ("cond",))
    assert_close(by_token.norms[SITE].values, np.full((1, 3), 5.0))
    assert_close(added(by_token, 1.0, unit="norm")[0, "cond"], values[0, 0] / 5)


def test_a_direction_that_is_zero_stays_zero() -> None:
    none = vector_of(np.zeros((1, len(SIGMAS), 4)), ("cond",))
    assert not added(none, 1.0, unit="norm")[0, "cond"].any()


def test_strength_follows_the_schedule_from_the_first_steered_step_on(vector: Vector) -> None:
    found = added(vector, 2.0, schedule="linear", over="sigmas", start_step=1)
    assert {step: value[0] for (step, _), value in found.items()} == {1: 2 * 3 * 0.75, 2: 2 * 3 * 0.5}


def test_norms_of_tokens_are_kept_if_asked(vector: Vector) -> None:
    assert all(edit.parameters.keep_norm for edit in vector.at(1.0, keep_norm=True))
    assert not any(edit.parameters.keep_norm for edit in vector.at(1.0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": float("nan")}, "strength"),
        ({"strength": "2x"}, "strength must be"),
        ({"unit": "token"}, "unit must be"),
        ({"passes": "both"}, "passes must be"),
        ({"over": "time"}, "over must be"),
        ({"start_step": -1}, "start_step must be at least 0"),
        ({"start_step": 3}, "from 0 to 2; got 3"),
        ({"schedule": "quadratic"}, "Unknown schedule"),
    ],
)
def test_what_cannot_be_asked_for(vector: Vector, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Vector.at.__wrapped__(vector, **{"strength": 1.0, **options})  # without the type check


def test_a_pass_without_a_direction_is_named() -> None:
    with pytest.raises(
        UserError, match=r"no direction of the null pass. Make it with passes=\('cond', 'null'\)"
    ):
        vector_of(np.ones((1, len(SIGMAS), 4)), ("cond",)).at(1.0, passes="separate")
