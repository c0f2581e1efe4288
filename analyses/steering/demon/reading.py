"""Read DEMON's packs as vectors."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from analyses.steering.demon.header import FAMILIES, FILE, KEY, LARGEST, METHODS, PARTS, DemonHeader
from analyses.steering.directions import labelled, labelled_norms
from analyses.steering.files import refuse_folder
from analyses.steering.reliability import unknown_reliability
from analyses.steering.vector import Vector
from cache.errors import UserError
from cache.opening import UnsafeFile
from cache.protocol import Pass
from cache.wording import printable, quoted
from workbench.documents import parse_document
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site, parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.provenance import file_hash, provenance
from workbench.tensor_files import load_tensors
from workbench.validation import must_be, name_problem, validated

KNOB_UNIT = 0.1
"""Share of its norm that a unit of the knob adds of one of several `vectors`, where the pack does not say."""
UNIT_TOLERANCE = 1e-3
Rows = Float[np.ndarray, "block step channel"]


def vector_from_demon(
    path: str | os.PathLike[str], model: AudioDiffusionModel, settings: GenerationSettings | None = None
) -> Vector:
    """Read DEMON's pack as a vector for runs of a model with these settings; a strength of 1 is a unit of its knob.

    The policy becomes part of the directions. DEMON names the base by family and checkpoint only: the vector is taken
    for one of this model's, unless the pack has another hash of weights, as those that `write_demon` wrote have.

    Raises:
        UserError: if the file cannot be read or is damaged; if it is of another model, hook, width or number of steps;
            or if it has something that a vector has not, such as other directions for negative strengths.
    """
    must_be((str, os.PathLike), path, FILE)
    must_be(
        AudioDiffusionModel, model, "DEMON's packs are read for a model, such as wb.load('organism-shared')"
    )
    file, settings = Path(path), settings_or_default(settings)
    refuse_folder(file, "Give the file of DEMON's pack.")
    try:
        arrays, header = _load(file)
        _check_base(header, model)
        with np.errstate(over="ignore", invalid="ignore"):
            blocks, rows = _blocks_and_rows(header, arrays)
        sites = _sites(header, blocks, rows, model)
        sigmas = _sigmas(header, rows, model, settings)
        steps = _weighted(rows, header, len(sigmas))
    except UnsafeFile:
        raise
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}). Give the path of DEMON's pack."
        ) from error
    except (ValueError, UserError) as error:
        reason = printable(str(error)[:300].rstrip("."))
        raise UserError(f"{file} cannot be used as DEMON's pack: {reason}.") from error
    both = [name for name in ("cond", "null") if name in model.passes(settings)]
    passes: list[Pass] = ["cond"] if header.cond_only else both  # type: ignore[assignment]
    directions, raw_norms = {}, {}
    for place, site in enumerate(sites):
        values = np.stack([steps[place]] * len(passes))
        directions[site] = labelled(values, site, passes, sigmas)
        norm = header.norms[place] if header.norms else header.norm or np.nan
        raw_norms[site] = labelled_norms(np.full(values.shape[:2], norm), site, passes, sigmas)
    concept = header.label or header.name
    return Vector(
        method=METHODS.get(header.method, "imported"),
        concept=concept,
        positive=header.pos_anchor or f"more {concept}",
        negative=header.neg_anchor or f"less {concept}",
        directions=directions,
        unit="a unit of DEMON's knob",
        model=model.describe(),
        settings=settings,
        sampling=model.sampling(settings),
        examples=(),
        latents="unknown",
        reliability=unknown_reliability(sites, passes, len(sigmas)),
        raw_norms=raw_norms,
        provenance=provenance(
            source=str(file),
            source_sha256=file_hash(file),
            demon=header.model_dump_json(by_alias=True),
            note=_note(header),
        ),
    )


def _load(file: Path) -> tuple[Mapping[str, np.ndarray], DemonHeader]:
    arrays, texts = load_tensors(file.parent, file.name)
    if KEY not in texts:
        what = "is a bundle of several packs; give one of them" if "manifest" in texts else f"has no {KEY}"
        raise ValueError(f"it {what}")
    document = parse_document(texts[KEY])
    if isinstance(document.get("policy"), dict):
        document["policy"].setdefault("kind", "range")
    header = validated(DemonHeader, document, "its header is wrong")
    if header.hook not in PARTS:
        raise ValueError(f"its hook is {quoted(header.hook)}, but must be {' or '.join(PARTS)}")
    for text in (header.label, header.name, header.pos_anchor, header.neg_anchor):
        if problem := name_problem(text):
            raise ValueError(f"the name {quoted(text)} {problem}")
    for name in ("vector_neg", "vectors_neg"):
        if name in arrays:
            raise ValueError("it has other directions for negative strengths, which a vector cannot have")
    for name, array in arrays.items():
        if array.dtype.kind not in "fi" or not np.isfinite(array).all():
            raise ValueError(f"its array {quoted(name)} must have finite numbers")
    return arrays, header


def _check_base(header: DemonHeader, model: AudioDiffusionModel) -> None:
    architecture = model.options_class.architecture
    if FAMILIES.get(header.family) != architecture:
        raise ValueError(
            f"it is of the family {quoted(header.family)}, checkpoint {quoted(header.checkpoint)}, but {model.name} is "
            f"{architecture}"
        )
    weights = header.provenance.get("weights_hash", model.weights_hash)
    if weights != model.weights_hash:
        raise ValueError(
            f"it was made on {quoted(header.checkpoint)} (weights {quoted(str(weights))}), but this model is "
            f"{model.name} (weights {model.weights_hash})"
        )


def _blocks_and_rows(header: DemonHeader, arrays: Mapping[str, np.ndarray]) -> tuple[list[int], Rows]:
    """Return the blocks, and what a unit of the knob adds to each, in each step or (one step) in all steps alike."""
    if set(arrays) == {"vectors", "blocks"} and arrays["vectors"].ndim == 2:
        blocks = arrays["blocks"].ravel().tolist()
        shares = [_share(header, row, place) for place, row in enumerate(arrays["vectors"])]
        rows = (arrays["vectors"] * np.array(shares)[:, None])[:, None]
    elif set(arrays) == {"vector"}:
        blocks = header.blocks or [header.block]
        rows = arrays["vector"].astype(float) * header.magnitude
        rows = rows[None, None] if rows.ndim == 1 else rows
    else:
        raise ValueError("its arrays must be one vector, or vectors (block, channel) and blocks")
    if not all(type(block) is int and block >= 0 for block in blocks) or len(set(blocks)) < len(blocks):
        raise ValueError("it must name its blocks, each once")
    if rows.ndim != 3 or not rows.size or (len(rows), rows.shape[-1]) != (len(blocks), header.hidden_size):
        raise ValueError(
            f"its numbers have the shape {rows.shape}, which does not fit {len(blocks)} blocks of the hidden_size "
            f"{header.hidden_size}"
        )
    if len(header.norms) not in (0, len(blocks)):
        raise ValueError("it must have one of its norms for each block")
    return blocks, rows.astype(float)


def _share(header: DemonHeader, row: Float[np.ndarray, " channel"], place: int) -> float:
    """Return by how much a unit of the knob multiplies a row of `vectors`."""
    knob_unit = header.provenance.get("knob_unit", KNOB_UNIT)
    if header.norm and header.magnitude:
        knob_unit = header.magnitude / header.norm
    if not isinstance(knob_unit, int | float):
        raise ValueError("its knob_unit must be a number")
    norm = float(np.linalg.norm(row))
    if norm > 0 and abs(norm - 1) > UNIT_TOLERANCE:
        return float(knob_unit)
    return header.norms[place] * knob_unit if place < len(header.norms) else header.magnitude


def _weighted(
    rows: Float[np.ndarray, "block _given channel"], header: DemonHeader, n_steps: int
) -> Float[np.ndarray, "block step channel"]:
    """Return what a unit of the knob adds in each of the steps; raise ValueError if the numbers are too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = rows * np.array(header.policy.weights(n_steps))[:, None]
    if not (np.abs(steps) < LARGEST).all():
        raise ValueError("its numbers are too large")
    return steps


def _sites(header: DemonHeader, blocks: Sequence[int], rows: Rows, model: AudioDiffusionModel) -> list[str]:
    """Return the sites; raise ValueError or UserError unless the model has them, as wide."""
    sites = [Site(block, PARTS[header.hook]) for block in blocks]
    parse_sites(map(str, sites), model.n_blocks)
    for site in sites:
        if model.channels(site) != rows.shape[-1]:
            raise ValueError(
                f"it has {rows.shape[-1]} channels at {site}, but {model.name} has {model.channels(site)} there"
            )
    return [str(site) for site in sites]


def _sigmas(
    header: DemonHeader, rows: Rows, model: AudioDiffusionModel, settings: GenerationSettings
) -> list[float]:
    """Return the sigmas of the settings; raise ValueError if directions by step were made for others."""
    sigmas, own = model.sigmas(settings), header.provenance.get("sigmas")
    if rows.shape[1] == 1 and len(sigmas) != 1:
        return sigmas
    if rows.shape[1] != len(sigmas):
        raise ValueError(
            f"it has directions for {rows.shape[1]} steps, but the settings have {len(sigmas)}; give as many, and "
            "resample the vector"
        )
    if own is not None and not (
        _numbers(own) and np.allclose(np.array(own, float), sigmas, rtol=1e-3, atol=0)
    ):
        raise ValueError(
            "its steps have other sigmas than the settings; give the settings that it was made with"
        )
    return sigmas


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) in (int, float) and abs(value) < LARGEST for value in values
    )


def _note(header: DemonHeader) -> str:
    passes = "" if header.cond_only else " in all passes (passes='separate')"
    norm = " and restores the norm of each token (keep_norm=True)" if header.renorm else ""
    how = f" DEMON adds it{passes}{norm}." if passes or norm else ""
    base = (
        "" if "weights_hash" in header.provenance else " The pack does not identify the weights of its base."
    )
    return f"For DEMON's checkpoint {header.checkpoint}.{base}{how}"
