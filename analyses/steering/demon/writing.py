"""Write vectors as DEMON's packs."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from analyses.steering.closed_steps import check_open
from analyses.steering.demon.header import (
    FAMILIES,
    FILE,
    KEY,
    LARGEST,
    METHODS,
    PARTS,
    Curve,
    DemonHeader,
    Range,
)
from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.engine.sites import Site
from workbench.tensor_files import write_tensors
from workbench.validation import must_be

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def write_demon(vector: Vector, path: str | os.PathLike[str], name: str = "") -> Path:
    """Write a vector as DEMON's pack, whose knob `steer_NAME` has a unit of a strength of 1.

    One site with one direction becomes a single `vector` of length 1 with its magnitude and a curve of weights; other
    vectors have one for each block and step, at the same sigmas as here. A pack has no gate, so that no step may be
    closed (see `Vector.ignoring_gate`).

    Args:
        vector: the vector.
        path: the file to write; an existing one is replaced.
        name: lower-case letters, digits and `_`, at most 32; by default made of the concept.

    Returns:
        The path.

    Raises:
        GatedStep: if an autoencoder of the vector may not be used at a step.
        UserError: if DEMON's packs cannot express the vector, or the file cannot be written.
    """
    must_be((str, os.PathLike), path, FILE)
    must_be(Vector, vector, "A pack is written of a vector, such as one of wb.caa")
    every = [(site, step) for site in vector.directions for step in range(len(vector.sigmas))]
    check_open(vector.saes, every, vector.sigmas)
    rows, cond_only = _one_direction_per_step(vector)
    hook, blocks = _hook_and_blocks(vector)
    tensor, of_numbers = _as_single(rows, vector) if len(rows) == 1 else (None, {})
    if tensor is None:
        tensor, of_numbers = rows, {"blocks": blocks, "magnitude": 1.0, "policy": Range()}
    header = DemonHeader(
        format=1,
        family=_family(vector),
        checkpoint=vector.model["model"],
        hook=hook,
        block=blocks[0],
        hidden_size=rows.shape[-1],
        name=_name(name or vector.concept),
        method=next((its for its, ours in METHODS.items() if ours == vector.method), vector.method),
        cond_only=cond_only,
        label=vector.concept,
        blurb=f"+ is {vector.positive}, − is {vector.negative}",
        pos_anchor=vector.positive,
        neg_anchor=vector.negative,
        provenance={
            "written_by": f"audio-diffusion-workbench {vector.provenance['code_version']}",
            "created": vector.provenance["created"],
            "weights_hash": vector.model["weights_hash"],
            "sigmas": list(vector.sigmas),
            "pairs": vector.n_pairs,
            "sampling": vector.sampling.model_dump(mode="json"),
        },
        **of_numbers,
    )
    known = header.model_dump(mode="json", by_alias=True, exclude_none=True)
    write_tensors(Path(path), {"vector": tensor.astype(np.float32)}, {KEY: json.dumps(known, sort_keys=True)})
    return Path(path)


def _one_direction_per_step(vector: Vector) -> tuple[Float[np.ndarray, "block step channel"], bool]:
    """Return the directions, and whether they are only for the cond pass; raise UserError if passes differ."""
    arrays = list(vector.directions.values())
    if any("token" in array.dims for array in arrays):
        raise UserError(
            "DEMON's packs have one direction for all tokens; this vector changes along the clip. Make one that is "
            "constant in time."
        )
    if len({array.sizes["channel"] for array in arrays}) > 1:
        raise UserError(
            "DEMON's packs have one width; the sites of this vector have several. Choose some of them."
        )
    values = np.stack([array.values for array in arrays], axis=1)
    if not (np.abs(values) < LARGEST).all():
        raise UserError("DEMON's packs are in single precision; this vector has larger numbers.")
    passes = set(arrays[0]["pass"].values.tolist())
    if passes not in ({"cond"}, {"cond", "null"}) or not np.array_equal(values[0], values[-1]):
        raise UserError(
            "DEMON's packs have one direction, for the cond pass or for both; this vector has others. Make one of the "
            "cond pass."
        )
    return values[0], passes == {"cond"}


def _hook_and_blocks(vector: Vector) -> tuple[str, list[int]]:
    sites = [Site.parse(site) for site in vector.directions]
    hooks = {part: hook for hook, part in PARTS.items()}
    parts = {site.part for site in sites}
    if len(parts) > 1 or not parts <= hooks.keys():
        raise UserError(
            f"DEMON's packs act on the {' or the '.join(hooks)} outputs of blocks; this vector is of "
            f"{', '.join(vector.directions)}. Choose sites of one of these."
        )
    return hooks[sites[0].part], [site.block for site in sites]


def _family(vector: Vector) -> str:
    architecture = vector.sampling.architecture
    for family, known in FAMILIES.items():
        if known == architecture:
            return family
    raise UserError(
        f"DEMON's packs are for {', '.join(FAMILIES.values())}; this vector is of {architecture}."
    )


def _name(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:32]
    if not _NAME.fullmatch(name):
        raise UserError(
            f"DEMON's knob needs a name that begins with a letter from a to z, not '{text[:40]}'. Give one."
        )
    return name


def _as_single(
    rows: Float[np.ndarray, "block step channel"], vector: Vector
) -> tuple[Float[np.ndarray, " channel"] | None, dict[str, Any]]:
    """Return a direction of length 1 and its fields of the header, if the steps' differ only in length, else None."""
    (steps,) = rows.astype(float)
    norms = np.linalg.norm(steps, axis=-1)
    longest = int(norms.argmax())
    if not norms[longest]:
        return None, {}
    unit, weights = steps[longest] / norms[longest], norms / norms[longest]
    if not np.allclose(steps, np.outer(norms, unit), rtol=0, atol=1e-6 * norms[longest]):
        return None, {}
    (raw,) = (array.values[0, longest] for array in vector.raw_norms.values())
    alike = np.allclose(weights, 1)
    return unit, {
        "magnitude": float(norms[longest]),
        "policy": Range() if alike else Curve(kind="curve", weights=weights.tolist()),
        "norm": float(raw) if np.isfinite(raw) else 0.0,
    }
