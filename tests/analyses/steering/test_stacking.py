"""Sums of vectors against their formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analyses.steering.directions import labelled
from analyses.steering.stacking import interference, stack
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.analyses.steering.test_vector import SIGMAS, SITE, vector_of
from tests.tolerances import assert_close

OTHER = "tf0.mlp"
PASSES = ("cond", "null")
SHAPE = (2, len(SIGMAS), 6)


def random_vector(seed: int, shape: tuple[int, ...] = SHAPE, **changed: Any) -> Vector:
    vector = vector_of(np.random.default_rng(seed).standard_normal(shape))
    return replace(vector, concept=f"concept {seed}", **changed)


@pytest.fixture
def three() -> list[Vector]:
    return [random_vector(seed) for seed in range(3)]


def values(vector: Vector) -> np.ndarray:
    return vector.directions[SITE].values


def gram_schmidt(rows: list[np.ndarray]) -> list[np.ndarray]:
    """Classical Gram–Schmidt without normalisation."""
    done: list[np.ndarray] = []
    for row in rows:
        done.append(row - sum((row @ one) / (one @ one) * one for one in done))
    return done


@pytest.mark.parametrize("weights", [None, [1.0, -1.0, 0.5]])
@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("budget", ["raw", "root", "mean", "shared"])
def test_it_is_the_weighted_sum_under_its_budget(
    three: list[Vector], weights: Any, orthogonal: bool, budget: Any
) -> None:
    found = values(stack(three, weights, orthogonal=orthogonal, budget=budget))
    factors = weights or [1, 1, 1]
    for place in np.ndindex(SHAPE[:2]):
        rows = [values(vector)[place] for vector in three]
        parts = gram_schmidt(rows) if orthogonal else rows
        total = sum(factor * part for factor, part in zip(factors, parts, strict=True))
        one = np.mean([abs(factor) * np.linalg.norm(row) for factor, row in zip(factors, rows, strict=True)])
        scale = {"raw": 1, "root": 3**-0.5, "mean": 1 / 3, "shared": one / np.linalg.norm(total)}[budget]
        assert_close(found[place], scale * total)


def test_orthogonal_vectors_do_not_turn_earlier_ones(three: list[Vector]) -> None:
    """The sum's part along the first vector is that vector itself."""
    first = values(three[0])
    total = values(stack(three, orthogonal=True))
    along = (total * first).sum(axis=-1) / (first**2).sum(axis=-1)
    assert_close(along, np.ones(SHAPE[:2]))


def test_a_vector_along_an_earlier_one_adds_no_rounding_as_a_direction(three: list[Vector]) -> None:
    twice = replace(three[0], directions={SITE: -3 * three[0].directions[SITE]})
    with_it, without = (
        stack(vectors, orthogonal=True) for vectors in ([three[0], twice, three[1]], three[:2])
    )
    assert_close(values(with_it), values(without))


def test_it_says_what_it_is(three: list[Vector], tmp_path: Any) -> None:
    vectors = [
        replace(three[0], positive="happy", negative="sad"),
        replace(three[1], positive="fast", negative="slow"),
    ]
    both = stack(vectors, [1.0, -2.0])
    assert (both.concept, both.positive, both.negative) == (
        "concept 0 and concept 1",
        "happy and slow",
        "sad and fast",
    )
    assert both.n_pairs == 8, "each has four"
    assert both.method == "stack"
    back = load_vector(both.save(tmp_path / "both.safetensors"))
    assert back.at(2.0) == both.at(2.0)
    assert all(edit.parameters.changes_nothing for edit in both.at(0.0))


def test_a_site_that_a_vector_lacks_gets_nothing_from_it(three: list[Vector]) -> None:
    elsewhere = {OTHER: labelled(np.ones((*SHAPE[:2], 4)), OTHER, PASSES, SIGMAS)}
    other = replace(three[1], directions=elsewhere, raw_norms={})
    both = stack([three[0], other], budget="shared")
    assert_close(values(both), values(three[0]), "the norm of one vector, of those that are there")
    assert_close(both.directions[OTHER].values, elsewhere[OTHER].values)


def test_constant_directions_are_added_to_every_token() -> None:
    constant, by_token = random_vector(0), random_vector(1, (2, len(SIGMAS), 5, 6))
    both = stack([constant, by_token])
    assert both.directions[SITE].dims == ("pass", "step", "token", "channel")
    assert_close(values(both), values(constant)[:, :, None] + values(by_token))
    same = interference([constant, stack([constant, by_token], [1.0, 0.0])])
    assert_close(same.sel(vector=0, vector_b=1).values, np.ones((1, 2, 3)))


def test_interference_is_the_cosine(three: list[Vector]) -> None:
    found = interference(three)
    assert found.dims == ("vector", "vector_b", "site", "pass", "step")
    assert found["name"].values.tolist() == [f"concept {seed} (caa)" for seed in range(3)]
    for one, other in np.ndindex(3, 3):
        for acting, step in np.ndindex(SHAPE[:2]):
            a, b = (values(three[place])[acting, step] for place in (one, other))
            expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            cell = found.sel(vector=one, vector_b=other, site=SITE).values[acting, step]
            assert_close(cell, expected)


def test_a_vector_without_a_direction_has_no_cosine(three: list[Vector]) -> None:
    found = interference([three[0], vector_of(np.zeros(SHAPE))])
    assert found.sel(vector=1).isnull().all()
    assert found.sel(vector=0, vector_b=0).notnull().all()


@pytest.mark.parametrize(
    ("second", "options", "words"),
    [
        ({"model": {"model": "tiny", "weights_hash": "cd"}}, {}, "different weights"),
        (
            {"directions": {SITE: labelled(np.ones(SHAPE), SITE, PASSES, (1.0, 0.8, 0.5))}},
            {},
            "different steps",
        ),
        (
            {"directions": {SITE: labelled(np.ones((1, *SHAPE[1:])), SITE, ("cond",), SIGMAS)}},
            {},
            "different passes",
        ),
        ({}, {"weights": [1.0]}, "one weight for each of the 2"),
        ({}, {"weights": [1.0, float("nan")]}, "weights"),
        ({}, {"budget": "half"}, "budget must be"),
    ],
)
def test_what_does_not_fit(
    three: list[Vector], second: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        stack.__wrapped__([three[0], replace(three[1], **second)], **options)


def test_tokens_must_be_the_same() -> None:
    two = [random_vector(0, (2, 3, tokens, 6)) for tokens in (4, 5)]
    for vectors in (two, [two[0], replace(two[0], cycle=True)]):
        with pytest.raises(UserError, match="different tokens"):
            stack(vectors)
    assert values(stack([vector.over_time() for vector in two])).shape == SHAPE


@pytest.mark.parametrize("vectors", [[], None, ["mood"], 3])
def test_what_is_no_list_of_vectors(vectors: Any) -> None:
    for function in (stack, interference):
        with pytest.raises(UserError, match="ector"):
            function.__wrapped__(vectors)


def test_weights_whose_sum_overflows_are_refused(three: list[Vector]) -> None:
    for budget in ("raw", "shared"):
        with pytest.raises(UserError, match="smaller weights"):
            stack(three[:2], [1.7e308, 1.7e308], budget=budget)
