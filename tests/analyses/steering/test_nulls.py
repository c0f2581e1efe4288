"""Random vectors: as long as a vector, and in no direction that has to do with it."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from analyses.steering.directions import labelled
from analyses.steering.nulls import random_vectors
from analyses.steering.reliability import reliability
from analyses.steering.vector import Vector
from cache.errors import UserError
from tests.analyses.steering.test_vector import SIGMAS, SITE, vector_of
from tests.tolerances import assert_close


@pytest.fixture(params=[(2, len(SIGMAS), 64), (2, len(SIGMAS), 5, 64), (2, len(SIGMAS), 80, 64)], ids=str)
def vector(request: pytest.FixtureRequest) -> Vector:
    """Constant, by token, and by more tokens than there are channels."""
    return vector_of(np.random.default_rng(0).standard_normal(request.param))


def test_norms_and_the_course_in_time_are_kept(vector: Vector) -> None:
    for random in random_vectors(vector, 3):
        one, other = random.directions[SITE], vector.directions[SITE]
        assert one.dims == other.dims
        xr.testing.assert_equal(one.coords.to_dataset(), other.coords.to_dataset())
        assert_close(_products(one.values), _products(other.values))
        assert_close(random.norms[SITE].values, vector.norms[SITE].values)


def _products(values: np.ndarray) -> np.ndarray:
    """Inner products of the tokens of each direction."""
    rows = values.reshape(-1, *((1,) if values.ndim == 3 else ()), *values.shape[2:])
    return rows @ np.swapaxes(rows, -1, -2)


def test_directions_are_random() -> None:
    """Their cosine with the vector's has mean 0 and variance 1 / channels."""
    vector = vector_of(np.random.default_rng(7).standard_normal((2, len(SIGMAS), 64)))
    own = vector.directions[SITE].values
    cosines = np.array(
        [
            (one.directions[SITE].values * own).sum(-1) / np.linalg.norm(own, axis=-1) ** 2
            for one in random_vectors(vector, 200)
        ]
    )
    assert abs(cosines.mean()) < 3 / np.sqrt(cosines.size * 64)
    assert cosines.var() == pytest.approx(1 / 64, rel=0.15)


def test_draws_do_not_depend_on_their_number_but_on_the_seed(vector: Vector) -> None:
    few, many, others = (
        random_vectors(vector, 2),
        random_vectors(vector, 4),
        random_vectors(vector, 2, seed=1),
    )
    for one, same, other in zip(few, many, others, strict=False):
        assert_close(one.directions[SITE].values, same.directions[SITE].values)
        assert abs(one.directions[SITE] - other.directions[SITE]).max() > 0.1
    assert abs(many[0].directions[SITE] - many[1].directions[SITE]).max() > 0.1


def test_every_site_pass_and_step_is_turned_by_itself() -> None:
    vector = vector_of(np.ones((2, len(SIGMAS), 8)))
    directions = {
        site: labelled(np.ones((2, len(SIGMAS), 8)), site, ("cond", "null"), SIGMAS)
        for site in ("tf0.mlp", "tf1.mlp")
    }
    vector = replace(vector, directions=directions)
    (random,) = random_vectors(vector, 1)
    rows = np.concatenate([array.values.reshape(-1, 8) for array in random.directions.values()])
    assert len(np.unique(rows.round(6), axis=0)) == len(rows)


def test_they_do_not_pass_for_the_concept(vector: Vector) -> None:
    assert [one.concept for one in random_vectors(vector, 2)] == [
        "random 0 (like mood)",
        "random 1 (like mood)",
    ]


@pytest.mark.parametrize(
    ("options", "words"), [({"n": 0}, "n must be at least 1"), ({"seed": -1}, "seed must be at least 0")]
)
def test_what_cannot_be_drawn(vector: Vector, options: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        random_vectors(vector, **options)


def test_they_have_no_reliability_of_pairs(vector: Vector) -> None:
    sums = np.random.default_rng(0).standard_normal((4, *vector.directions[SITE].shape))
    known = replace(vector, reliability=reliability({SITE: sums}, ["cond", "null"], 4))
    assert known.reliability.split_half.notnull().all()
    assert all(values.isnull().all() for values in random_vectors(known, 1)[0].reliability.values())
