"""The edits of a vector: which direction, how strong, at which steps and in which passes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

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


def test_projections_are_clamped_to_the_strength_in_lengths_of_the_direction(vector: Vector) -> None:
    for unit, length in (("difference", LENGTHS["cond"]), ("norm", 1.0)):
        edits = vector.at(-2.0, operation="clamp", unit=unit, start_step=1)
        assert [(edit.operator, edit.window.steps) for edit in edits] == [
            ("clamp", (1, 1)),
            ("clamp", (2, 2)),
        ]
        assert_close([edit.parameters.projection for edit in edits], [-2.0 * length] * 2)
        assert_close(edits[0].parameters.vector.value, vector.directions[SITE].values[0, 1])


@pytest.mark.parametrize("strength", [0.5, -0.5])
def test_steering_back_takes_out_what_lies_on_the_other_side(vector: Vector, strength: float) -> None:
    first, *_ = vector.at(strength, operation="steer_back", passes="separate")
    assert (first.operator, first.parameters.amount) == ("steer_back", 0.5)
    assert_close(first.parameters.vector.value, -np.sign(strength) * vector.directions[SITE].values[0, 0])


@pytest.mark.parametrize("operation", ["clamp", "steer_back"])
def test_where_nothing_is_asked_no_projection_is_changed(
    vector: Vector, operation: Literal["clamp", "steer_back"]
) -> None:
    """At strength 0, in steps of weight 0, and where there is no direction."""
    assert vector.at(0.0, operation=operation) == ()
    (only,) = vector.at(1.0, operation=operation, schedule=[0.0, 1.0, 0.0])
    assert only.window.steps == (1, 1)
    assert vector_of(np.zeros((1, len(SIGMAS), 4)), ("cond",)).at(1.0, operation=operation) == ()
    by_token = vector_of(np.ones((1, len(SIGMAS), 5, 4)), ("cond",))
    with pytest.raises(UserError, match="constant in time"):
        by_token.at(1.0, operation=operation)
    with pytest.raises(UserError, match="keep_norm is for adding"):
        vector.at(1.0, operation=operation, keep_norm=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operation": "multiply"}, "operation must be"),
        ({"operation": "steer_back", "unit": "norm"}, "share of the projection"),
        ({"keep_norm": 3}, "keep_norm must be"),
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


# Other steps, and some of the sites


def test_each_new_step_has_the_direction_of_the_nearest_sigma() -> None:
    values = np.arange(3.0)[None, :, None] + np.ones((2, 3, 4))
    vector = vector_of(values)
    new = (1.2, 0.9, 0.875, 0.55, 0.01)
    steps = [0, 0, 0, 2, 2]  # 0.875 is as near to 0.75 as to 1
    found = vector.resampled(new)
    assert found.sigmas == new
    np.testing.assert_array_equal(found.directions[SITE].values, values[:, steps])
    np.testing.assert_array_equal(found.norms[SITE].values, vector.norms[SITE].values[:, steps])
    np.testing.assert_array_equal(found.raw_norms[SITE].values, found.norms[SITE].values)
    assert all(edit.made_at == new for edit in found.at(1.0))
    assert found.provenance["original_steps"] == steps
    assert found.provenance["original_sigmas"] == list(SIGMAS)
    assert "by the nearest sigma, from 3 steps" in found.provenance["resampled"]
    assert (found.settings, found.sampling, found.examples) == (
        vector.settings,
        vector.sampling,
        vector.examples,
    )


def test_reliability_is_resampled_with_the_steps() -> None:
    draw = np.random.default_rng(0).standard_normal((4, 1, 3, 8))
    vector = vector_of(draw.mean(axis=0), ("cond",))
    vector = replace(vector, reliability=reliability({SITE: draw}, ["cond"], 4))
    found, steps = vector.resampled((1.0, 0.5)).reliability, [0, 2]
    assert found["step"].values.tolist() == found["step_b"].values.tolist() == [0, 1]
    for name, values in found.items():
        expected = vector.reliability[name].values[:, :, steps]
        np.testing.assert_array_equal(values.values, expected[..., steps] if name == "steps" else expected)


def test_the_same_steps_change_nothing(vector: Vector) -> None:
    found = vector.resampled(SIGMAS)
    assert [edit.hash for edit in found.at(2.0)] == [edit.hash for edit in vector.at(2.0)]


@pytest.mark.parametrize("sigmas", [(), (1.0, -1.0), (1.0, float("nan")), (1.0, "0.5"), 0.5])
def test_steps_that_no_run_has(vector: Vector, sigmas: Any) -> None:
    with pytest.raises(UserError, match="Invalid steps: sigmas"):
        Vector.resampled.__wrapped__(vector, sigmas)  # without the type check


def test_some_of_its_sites(vector: Vector) -> None:
    sites = ("tf0.mlp", "tf1.block", "tf2.block")
    arrays = {
        site: labelled(np.full((1, 3, 4), place), site, ("cond",), SIGMAS) for place, site in enumerate(sites)
    }
    sums = {site: np.random.default_rng(0).standard_normal((2, 1, 3, 4)) for site in sites}
    vector = replace(
        vector,
        directions=arrays,
        raw_norms={},
        reliability=reliability(sums, ["cond"], 2),
        model={**vector.model, "block_names": ["a", "b", "c"]},
    )
    found = vector.only(["c.block", "tf0.mlp"])
    assert list(found.directions) == list(found.raw_norms) == ["tf0.mlp", "tf2.block"]
    assert found.reliability["site"].values.tolist() == ["tf0.mlp", "tf2.block"]
    assert found.at(1.0) == tuple(edit for edit in vector.at(1.0) if edit.sites != ("tf1.block",))
    assert list(vector.only(["*.block"]).directions) == ["tf1.block", "tf2.block"]
    for sites, words in (
        (["tf1.mlp"], "no direction at tf1.mlp. It has tf0.mlp, tf1.block, tf2.block"),
        ([], "one"),
        (["*.self_attn"], "at least one site of the vector: tf0.mlp, tf1.block, tf2.block"),
    ):
        with pytest.raises(UserError, match=words):
            vector.only(sites)
