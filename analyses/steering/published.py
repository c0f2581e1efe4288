"""Published steering vectors (TADA's CAA and AUSteer) as vectors of a model at hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyses.steering.austeer import UNIT as CONSISTENCY
from analyses.steering.austeer import largest_of_all_sites
from analyses.steering.caa import UNIT as MEAN_DIFFERENCE
from analyses.steering.directions import labelled, labelled_norms
from analyses.steering.reliability import unknown_reliability
from analyses.steering.vector import Vector
from cache.errors import UserError
from cache.protocol import Pass
from workbench.artefacts.austeer import AuSteerScores, read_austeer
from workbench.artefacts.caa import LYRICS, CaaVectors, read_caa
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.provenance import provenance
from workbench.validation import must_be, validated

ARCHITECTURE = "ACE-Step v1"
DURATION, GUIDANCE = 30.0, 5.0
OPTIONS: dict[str, bool | float | str] = {"guidance_interval": 1.0, "erg_lyric": False, "omega": 10.0}
"""Settings with which the published vectors were computed, where their own do not say otherwise."""
UNIT_LENGTH = "a direction of length 1"
BASE = (
    "The published file does not identify its base model: the weights are those of the model given on import. "
    + LYRICS
)


def vector_from_published(
    source: str,
    model: AudioDiffusionModel,
    *,
    concept: str = "",
    sites: str | Sequence[str] = (),
    k: int | None = None,
) -> Vector:
    """Read published vectors (`sv.pkl`) or AUSteer scores (`austeer.pkl`) of ACE-Step v1 as a vector of this model.

    The raw norms of published vectors of length 1 are unknown, as are the pairs that they were computed from. Which
    weights they belong to is unknown, too: they are taken for the model's, and other weights then refuse them.

    Args:
        source: folder, file or hub id.
        model: ACE-Step v1 with the published weights.
        concept: required if the settings beside the vectors do not name it.
        sites: some of the published sites; all by default.
        k: for AUSteer, the number of channels to keep, which the published scores leave open (see `AUSteer`).

    Raises:
        UserError: if files are missing, unsafe, damaged or in another format; if the model has other sites or widths,
            or another architecture; if `k` is missing, or given for mean differences.
    """
    must_be(
        AudioDiffusionModel, model, "Published vectors are read for a model, such as wb.load('ace-step-v1')"
    )
    must_be(str, source, "The source of published vectors must be a folder, a file, or a hub id")
    is_austeer = "austeer" in Path(source).name or (Path(source) / "austeer.pkl").exists()
    artefact = (read_austeer if is_austeer else read_caa)(source, concept)
    if model.options_class.architecture != ARCHITECTURE:
        raise UserError(
            f"The published vectors are of {ARCHITECTURE}; {model.name} is {model.options_class.architecture}."
        )
    chosen = _chosen_sites(artefact, model, sites)
    directions, method, unit = _directions(artefact, chosen, k)
    every: tuple[Pass, ...] = ("cond", "null")
    passes = [name for name in every if (chosen[0], name) in directions]
    settings = _settings(artefact)
    sigmas = model.sigmas(settings)
    arrays = {site: np.stack([directions[site, name] for name in passes]) for site in chosen}
    return Vector(
        method=method,
        concept=artefact.concept.name,
        positive=artefact.concept.positive,
        negative=artefact.concept.negative,
        directions={site: labelled(values, site, passes, sigmas) for site, values in arrays.items()},
        unit=unit,
        model=model.describe(),
        settings=settings,
        sampling=model.sampling(settings),
        examples=(),
        reliability=unknown_reliability(chosen, passes, len(sigmas)),
        raw_norms={
            site: labelled_norms(np.full(values.shape[:2], np.nan), site, passes, sigmas)
            for site, values in arrays.items()
            if unit == UNIT_LENGTH
        },
        provenance=_provenance(artefact),
    )


def _chosen_sites(
    artefact: CaaVectors | AuSteerScores, model: AudioDiffusionModel, sites: str | Sequence[str]
) -> list[str]:
    """Return the sites to read; raise UserError if the artefact or the model does not have them, or not as wide."""
    source = artefact.origin.source
    chosen = parse_sites(sites or list(artefact.sites), model.n_blocks, model.block_names)
    for site in chosen:
        if str(site) not in artefact.sites:
            raise UserError(f"{source} has no vectors at {site}. It has {', '.join(artefact.sites)}.")
        width = artefact.sites[str(site)]
        if width != model.channels(site):
            raise UserError(
                f"{source} has vectors with {width} channels at {site}, but {model.name} has {model.channels(site)} "
                "there. They belong to another model."
            )
    return [str(site) for site in chosen]


def _directions(
    artefact: CaaVectors | AuSteerScores, sites: Sequence[str], k: int | None
) -> tuple[Mapping[tuple[str, str], np.ndarray], str, str]:
    """Return directions (step, channel) by site and pass, their method, and what a strength of 1 adds."""
    if isinstance(artefact, CaaVectors):
        if k is not None:
            raise UserError("k belongs to AUSteer scores; these are mean differences. Leave it out.")
        return artefact.vectors, "caa", UNIT_LENGTH if artefact.unit_norm else MEAN_DIFFERENCE
    n_channels = sum(artefact.sites[site] for site in sites)
    if type(k) is not int or not 1 <= k <= n_channels:
        raise UserError(
            f"AUSteer scores need k, the number of channels to keep at all sites together, from 1 to {n_channels} "
            f"(2048 for piano in the paper); got {k}."
        )
    kept = largest_of_all_sites({site: artefact.betas[site][None] for site in sites}, k)
    return {(site, "cond"): values[0] for site, values in kept.items()}, "austeer", CONSISTENCY


def _settings(artefact: CaaVectors | AuSteerScores) -> GenerationSettings:
    """Return the settings with which an artefact was computed; raise UserError if they are invalid."""
    given = artefact.origin.settings
    return validated(
        GenerationSettings,
        {
            "duration": given.get("audio_duration", DURATION),
            "num_steps": artefact.steps,
            "guidance_scale": given.get("guidance_scale", GUIDANCE),
            "options": OPTIONS,
        },
        f"{artefact.origin.source} has invalid settings",
    )


def _provenance(artefact: CaaVectors | AuSteerScores) -> dict[str, Any]:
    concept, origin = artefact.concept, artefact.origin
    return provenance(
        source=origin.source,
        source_sha256=origin.sha256,
        published_settings=json.dumps(dict(origin.settings)),
        prompts=f"{concept.positive_prompt} (+), {concept.negative_prompt} (−)",
        note=BASE,
    )
