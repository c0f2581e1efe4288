"""Several vectors at once: their weighted sum under a norm budget, and how much they interfere."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from pydantic import Field

from analyses.steering.examples import Example
from analyses.steering.reliability import unknown_reliability
from analyses.steering.used_saes import UsedSAE
from analyses.steering.vector import RESAMPLED, Vector
from cache.errors import UserError
from workbench.engine.windows import SAME_SIGMA
from workbench.provenance import provenance
from workbench.validation import Number, must_be, validated

Budget = Literal["raw", "root", "mean", "shared"]
ROUNDING = 1e-10
"""Part of a vector's norm below which what orthogonalisation leaves of it is rounding."""
_VECTORS = "Vectors to stack must be a list of vectors, such as those of wb.caa"


def stack(
    vectors: Sequence[Vector],
    weights: Sequence[float] | None = None,
    *,
    orthogonal: bool = False,
    budget: Budget = "raw",
) -> Vector:
    """Return one vector that is the weighted sum of several, at each site, pass and step.

    Sites that a vector lacks get nothing from it. Its reliability is unknown, and its examples are those of all.

    Args:
        vectors: vectors of the same model, steps and passes.
        weights: weight of each; negative ones turn a vector round. 1 for all by default.
        orthogonal: first take out of each vector what lies along the vectors before it (Gram–Schmidt in the given
            order), so that a later one does not add to, or take from, an earlier one.
        budget: the norm of the sum. `raw`: as it is; `root`: divided by √n, for n vectors; `mean`: divided by n;
            `shared`: scaled to the norm of one vector, which is the mean of |weight| times their norms at the site.

    Raises:
        UserError: if there is no vector, they belong to different models, steps or passes, their tokens differ, or
            there is not one finite weight for each.
    """
    together = _together(vectors)
    given = [1.0] * len(vectors) if weights is None else weights
    how = validated(_How, {"weights": given, "orthogonal": orthogonal, "budget": budget}, "Invalid stack")
    if len(how.weights) != len(vectors):
        raise UserError(
            f"There must be one weight for each of the {len(vectors)} vectors; got {len(how.weights)}."
        )
    directions = {site: _sum(array, how) for site, array in together.items()}
    first = vectors[0]
    plus, minus = (
        " and ".join(
            vector.positive if (weight >= 0) == towards else vector.negative
            for vector, weight in zip(vectors, how.weights, strict=True)
        )
        for towards in (True, False)
    )
    return Vector(
        method="stack",
        concept=" and ".join(vector.concept for vector in vectors),
        positive=plus,
        negative=minus,
        directions=directions,
        unit="the weighted sum of the directions of several vectors",
        model=first.model,
        settings=first.settings,
        sampling=first.sampling,
        examples=_examples(vectors),
        reliability=unknown_reliability(
            list(directions), directions[next(iter(directions))]["pass"].values.tolist(), len(first.sigmas)
        ),
        latents=first.latents if len({vector.latents for vector in vectors}) == 1 else "mixed",
        cycle=any(vector.cycle for vector in vectors),
        saes=_saes(vectors),
        provenance=provenance(
            **{name: first.provenance[name] for name in RESAMPLED if name in first.provenance}
        ),
    )


def interference(vectors: Sequence[Vector]) -> xr.DataArray:
    """Return the cosines between vectors: dims (vector, vector_b, site, pass, step).

    The coordinate `name` says what each vector is. NaN where a vector has no direction. Vectors with a cosine far from
    0 turn each other's concepts when they are stacked.

    Raises:
        UserError: as `stack`.
    """
    together = _together(vectors)
    cosines = []
    for array in together.values():
        flat = array.values.reshape(*array.shape[:3], -1)
        with np.errstate(invalid="ignore"):
            unit = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
        cosines.append(np.einsum("apsc,bpsc->abps", unit, unit))
    first = next(iter(together.values()))
    coordinates = {
        "vector": range(len(vectors)),
        "vector_b": range(len(vectors)),
        "site": list(together),
        "pass": first["pass"].values,
        "step": first["step"].values,
        "name": ("vector", [f"{vector.concept} ({vector.method})" for vector in vectors]),
    }
    dims = ("vector", "vector_b", "site", "pass", "step")
    return xr.DataArray(np.stack(cosines, axis=2), coordinates, dims, name="cosine")


@dataclass(frozen=True, kw_only=True)
class _How:
    weights: tuple[Annotated[Number, Field(allow_inf_nan=False)], ...]
    orthogonal: bool
    budget: Budget


def _together(vectors: Any) -> dict[str, xr.DataArray]:
    """Return all vectors' directions at each site as one array (vector, pass, step, [token,] channel).

    Zero where a vector lacks a site. Raise UserError unless the vectors fit together.
    """
    must_be(Sequence, vectors, _VECTORS)
    for vector in vectors:
        must_be(Vector, vector, _VECTORS)
    if not vectors:
        raise UserError("There must be at least one vector; got none.")
    for vector in vectors[1:]:
        _check_alike(vectors[0], vector)
    sites = dict.fromkeys(site for vector in vectors for site in vector.directions)
    return {site: _at_site(vectors, site) for site in sites}


def _at_site(vectors: Sequence[Vector], site: str) -> xr.DataArray:
    have = [vector.directions[site] for vector in vectors if site in vector.directions]
    arrays = [
        vector.directions[site] if site in vector.directions else xr.zeros_like(have[0]) for vector in vectors
    ]
    lengths = sorted({array.sizes["token"] for array in have if "token" in array.dims})
    of_cycles = {vector.cycle for vector in vectors if "token" in vector.directions.get(site, have[0]).dims}
    if len(lengths) > 1 or len(of_cycles) > 1:
        raise UserError(
            f"The vectors have directions for different tokens at {site} ({', '.join(map(str, lengths))} tokens). Use "
            "vectors of the same duration or cycle, or their means (over_time())."
        )
    full = xr.concat(xr.broadcast(*arrays), "vector", coords="minimal", compat="override")
    order = ("vector", "pass", "step", *(["token"] if lengths else []), "channel")
    return full.transpose(*order).rename(site)


def _check_alike(first: Vector, other: Vector) -> None:
    """Raise UserError for vectors of different models, steps or passes."""
    if first.model["weights_hash"] != other.model["weights_hash"]:
        raise UserError(
            f"The vectors belong to models with different weights, {first.model['model']} and {other.model['model']}. "
            "Compute them on the same model."
        )
    if len(first.sigmas) != len(other.sigmas) or not np.allclose(
        first.sigmas, other.sigmas, rtol=SAME_SIGMA, atol=0
    ):
        raise UserError(
            f"The vectors belong to different steps ({len(first.sigmas)} and {len(other.sigmas)}, or other sigmas). "
            "Compute them with the same settings, or resample one."
        )
    passes = [next(iter(vector.directions.values()))["pass"].values.tolist() for vector in (first, other)]
    if passes[0] != passes[1]:
        raise UserError(
            f"The vectors have directions of different passes, {' and '.join(passes[0])} and "
            f"{' and '.join(passes[1])}. Compute them with the same passes."
        )


@np.errstate(over="ignore", invalid="ignore")  # the sum is checked
def _sum(array: xr.DataArray, how: _How) -> xr.DataArray:
    """Return the sum of a site's directions under the budget; raise UserError if it is not finite."""
    weights = np.array(how.weights)
    values = array.values.astype(float)
    flat = values.reshape(*values.shape[:3], -1)
    total = np.tensordot(weights, _orthogonalised(flat) if how.orthogonal else flat, axes=1)
    lengths = np.abs(weights)[:, None, None] * np.linalg.norm(flat, axis=-1)
    scale = {
        "raw": 1.0,
        "root": 1 / np.sqrt(len(weights)),
        "mean": 1 / len(weights),
        "shared": _shared_scale(lengths, np.linalg.norm(total, axis=-1)),
    }[how.budget]
    together = (total * scale).reshape(values.shape[1:])
    if not np.isfinite(together).all():
        raise UserError("The sum of the vectors is too large for a number. Give smaller weights.")
    return array.isel(vector=0, drop=True).copy(data=together)


def _shared_scale(
    lengths: Float[np.ndarray, "vector pass step"], total: Float[np.ndarray, "pass step"]
) -> Float[np.ndarray, "pass step 1"]:
    """Return the factor that gives the sum the mean length of the vectors that have a direction; 0 for no sum."""
    number = np.maximum((lengths > 0).sum(axis=0), 1)
    return np.divide(lengths.sum(axis=0) / number, total, out=np.zeros_like(total), where=total > 0)[
        ..., None
    ]


def _orthogonalised(
    flat: Float[np.ndarray, "vector pass step number"],
) -> Float[np.ndarray, "vector pass step number"]:
    """Take out of each vector its components along the earlier ones (modified Gram–Schmidt)."""
    result = flat.copy()
    for place in range(1, len(result)):
        for earlier in result[:place]:
            square = (earlier**2).sum(axis=-1, keepdims=True)
            along = (result[place] * earlier).sum(axis=-1, keepdims=True)
            result[place] -= np.divide(along, square, out=np.zeros_like(along), where=square > 0) * earlier
        # What is left of a vector along earlier ones is rounding, which is no direction.
        lengths = [np.linalg.norm(each[place], axis=-1, keepdims=True) for each in (result, flat)]
        result[place] = np.where(lengths[0] > ROUNDING * lengths[1], result[place], 0.0)
    return result


def _saes(vectors: Sequence[Vector]) -> tuple[UsedSAE, ...]:
    """Return the autoencoders of all vectors, each with all steps at which one of the vectors may not use it."""
    by_closed = sorted((sae for vector in vectors for sae in vector.saes), key=lambda sae: len(sae.closed))
    return tuple({(sae.site, sae.weights): sae for sae in by_closed}.values())


def _examples(vectors: Sequence[Vector]) -> tuple[Example, ...]:
    """Return the examples of all vectors, with pairs that are numbered consecutively."""
    examples: list[Example] = []
    first = 0
    for vector in vectors:
        examples += [
            each if each.pair is None else replace(each, pair=first + each.pair) for each in vector.examples
        ]
        first += 1 + max((each.pair for each in vector.examples if each.pair is not None), default=-1)
    return tuple(examples)
