"""Null vectors: directions that carry no concept, but are as long as a vector's."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import xarray as xr
from jaxtyping import Float
from pydantic import Field

from analyses.steering.reliability import unknown_reliability
from analyses.steering.vector import Vector
from workbench.seeds import Seed
from workbench.validation import must_be, validated


def random_vectors(vector: Vector, n: int = 20, seed: int = 0) -> list[Vector]:
    """Return vectors whose directions are the vector's, each turned at random.

    All tokens of a direction are turned alike, so that its norms and its course in time are kept. Draw `k` does not
    depend on `n`.

    Raises:
        UserError: if `n` is below 1, or the seed is not from 0 to 2⁶⁴ - 1.
    """
    must_be(Vector, vector, "Random vectors are made like a vector, such as one of wb.caa")
    drawn = validated(_Drawn, {"n": n, "seed": seed}, "Invalid random vectors")
    return [_turned(vector, drawn.seed, number) for number in range(drawn.n)]


@dataclass(frozen=True)
class _Drawn:
    n: Annotated[int, Field(ge=1)]
    seed: Seed


def _turned(vector: Vector, seed: int, number: int) -> Vector:
    draws = np.random.default_rng((seed, number))
    directions = {site: _turned_directions(array, draws) for site, array in vector.directions.items()}
    first = next(iter(directions.values()))
    return replace(
        vector,
        concept=f"random {number} (like {vector.concept})",
        directions=directions,
        reliability=unknown_reliability(list(directions), first["pass"].values.tolist(), first.sizes["step"]),
        saes=(),
        checks=(),
    )


def _turned_directions(directions: xr.DataArray, draws: np.random.Generator) -> xr.DataArray:
    values = directions.values
    turned = [_turn(np.atleast_2d(of_step), draws) for of_pass in values for of_step in of_pass]
    return directions.copy(data=np.stack(turned).reshape(values.shape))


def _turn(
    rows: Float[np.ndarray, "token channel"], draws: np.random.Generator
) -> Float[np.ndarray, "token channel"]:
    """Rotate rows by one random rotation: the space that they span is replaced by a random one."""
    left, sizes, right = np.linalg.svd(rows, full_matrices=False)
    basis, _ = np.linalg.qr(draws.standard_normal((rows.shape[1], len(right))))
    return (left * sizes) @ basis.T
