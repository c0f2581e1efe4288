"""Make sites, vectors and ways of steering from a user's options."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import xarray as xr

from analyses.sae.run import load_sae
from analyses.steering.austeer import AUSteer
from analyses.steering.caa import CAA
from analyses.steering.capture import Method, PairOptions, fit
from analyses.steering.free_sliders import free_sliders
from analyses.steering.ladder import nulls
from analyses.steering.pairs import ends, pairs_towards
from analyses.steering.pci import PCI, pci
from analyses.steering.probe_direction import Probe
from analyses.steering.prompt_method import PromptMethod
from analyses.steering.run import Way
from analyses.steering.sae_features import SAEFeatures
from analyses.steering.schedule import Schedule
from analyses.steering.slider import Slider, load_slider
from analyses.steering.study_packs import find_pack
from analyses.steering.study_sliders import slider_file
from analyses.steering.text_embedding import text_embedding
from analyses.steering.token_embedding import TokenEmbedding, token_embedding
from analyses.steering.vector import Vector, load_vector
from analyses.steering_spec import METHODS, PROMPT_METHODS, SteeringSpec
from cache.errors import UserError
from workbench.engine.edits import Edit
from workbench.engine.sites import check_blocks, parse_blocks
from workbench.models.base import AudioDiffusionModel
from workbench.studies.study import Study
from workbench.validation import validated

EVERY, BUT = "all", "all-"
PART = "cross_attn"
LEAST_IMPACT = 0.1
"""Blocks of at least this impact are functional (TADA, arXiv 2602.11910, threshold of Eq. 2)."""
MAP = "patching-blocks"

_CLASSES: tuple[type[Method], ...] = (CAA, AUSteer, SAEFeatures, Probe)
_PROMPT_METHODS: dict[str, Callable[..., Any]] = dict(
    zip(PROMPT_METHODS, (pci, text_embedding, token_embedding, free_sliders), strict=True)
)
CLASSES = dict(zip(METHODS, _CLASSES, strict=True))
"""The class of each method that computes a vector from pairs; its own options are the class's fields."""


Steering = Vector | Slider | PromptMethod | TokenEmbedding
"""Anything with edits at a strength."""


def site_set(text: str, n_blocks: int, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the sites of a set of blocks.

    It is written like tf3+tf4, all, or all-tf3+tf4 for all but these; with a part of the blocks other than their
    cross-attention after a dot, such as tf3+tf4.mlp.

    Raises:
        UserError: if a block does not exist, or none is left.
    """
    blocks, _, part = text.partition(".")
    every = range(n_blocks)
    if blocks == EVERY:
        chosen: Sequence[int] = every
    elif blocks.startswith(BUT):
        left_out = parse_blocks(blocks.removeprefix(BUT), names)
        check_blocks(left_out, n_blocks)
        chosen = [block for block in every if block not in left_out]
    else:
        chosen = parse_blocks(blocks, names)
        check_blocks(chosen, n_blocks)
    if not chosen:
        raise UserError(f"'{text}' leaves no block. Leave out fewer.")
    return tuple(f"tf{block}.{part or PART}" for block in sorted(set(chosen)))


def functional_sites(study: Study, concept: str) -> tuple[str, ...]:
    """Return the cross-attentions of the blocks whose sufficiency for a concept is at least .1 in the study's map.

    Raises:
        UserError: if the study has no map of blocks, or no block has such an impact.
    """
    if MAP not in study.result_names():
        raise UserError(
            f"{study.path} has no map of blocks to choose sites from. Make it with `workbench patch`, or give "
            "the blocks (--sites tf3+tf4)."
        )
    found = study.result(MAP)
    impacts = _of_blocks(found, concept) if concept in found["concept"].values else None
    blocks = (
        [] if impacts is None else sorted(set(impacts.block.values[impacts.values >= LEAST_IMPACT].tolist()))
    )
    if not blocks:
        raise UserError(
            f"No block has an impact of at least {LEAST_IMPACT:g} on {concept} in the map of blocks of {study.path}. "
            "Give the blocks (--sites tf3+tf4)."
        )
    return tuple(f"tf{block}.{PART}" for block in blocks)


def _of_blocks(found: xr.Dataset, concept: str) -> xr.DataArray:
    """Return the impacts of single blocks on a concept by the first scorer."""
    of_concept = found["impact"].sel(concept=concept).isel(scorer=0)
    is_block = (found["role"] == "cell") & (found["direction"] == "sufficiency") & (found["block"] >= 0)
    return of_concept.sel(arm=is_block & (found["column"] == "sufficiency"))


def asked_sites(study: Study, model: AudioDiffusionModel, concept: str, sites: str) -> tuple[str, ...]:
    """Return the sites of a set of blocks, or without one the functional sites of the concept.

    Raises:
        UserError: as `site_set` and `functional_sites`; or if the concept is unknown.
    """
    ends(study.spec.prompts, concept)
    return site_set(sites, model.n_blocks, model.block_names) if sites else functional_sites(study, concept)


def fit_vector(
    study: Study,
    model: AudioDiffusionModel,
    method: str,
    concept: str,
    sites: str = "",
    own: Mapping[str, Any] = MappingProxyType({}),
    **options: Unpack[PairOptions],
) -> Vector:
    """Compute a vector with a method, from pairs of the study's prompt set, with its settings and lyrics.

    `own` are the method's own options, and `options` those of `capture_of_pairs`.

    Raises:
        UserError: as the method does, or if it is unknown or has no such option.
    """
    if method not in METHODS:
        raise UserError(f"Unknown method '{method}'. Methods: {', '.join(METHODS)}.")
    chosen = asked_sites(study, model, concept, sites)
    of_study = {"saes": {site: load_sae(study, site) for site in chosen}} if method == "sae-features" else {}
    fitted = validated(CLASSES[method], {**own, **of_study}, f"Invalid options of {method}")
    options |= {
        "prompts": study.spec.prompts,
        "settings": study.spec.settings,
        "lyrics": study.spec.lyrics,
    }
    (vector,) = fit(model, concept, chosen, [fitted], **options)
    return vector


def check_pairs(
    study: Study, concept: str, positive: str, negative: str, fit_pairs: int, pairs: int, seed: int
) -> None:
    """Raise UserError if there are not enough pairs to compute a vector and to try it on others."""
    prompts = study.spec.prompts
    towards = (concept, *ends(prompts, concept, positive, negative))
    fitted = pairs_towards(prompts, *towards, fit_pairs, 0)
    own = {prompt.text for pair in fitted for prompt in (pair.clean, pair.corrupt)}
    pairs_towards(prompts, *towards, pairs, seed, own)


def check_name(name: str) -> None:
    """Raise UserError for a name that a pack cannot have."""
    if not re.fullmatch(r"[\w.+-]*", name):
        raise UserError(f"The name of a pack may have letters, digits, and . + - _; got '{name[:80]}'.")


def asked_pack(study: Study, name: str) -> Vector:
    """Load a pack of the study by its name, or any by its file; raise UserError if there is neither."""
    if _is_path(name):
        return load_vector(Path(name))
    return load_vector(find_pack(study.path, name), root=study.path)


def asked_slider(study: Study, name: str) -> Slider:
    """Load a slider of the study by its name, or any by its file; raise UserError if there is neither."""
    if _is_path(name):
        return load_slider(Path(name))
    return load_slider(slider_file(study.path, name), root=study.path)


def prompt_method(
    study: Study,
    model: AudioDiffusionModel,
    method: str,
    concept: str,
    sites: str,
    positive: str,
    negative: str,
) -> PromptMethod | TokenEmbedding:
    """Return a method that steers through the prompt, for a concept of the study's prompt set.

    Raises:
        UserError: if the method, the concept or a value is unknown, or the sites are not cross-attentions.
    """
    made: PromptMethod | TokenEmbedding = _PROMPT_METHODS[method](
        model,
        concept,
        asked_sites(study, model, concept, sites),
        positive=positive,
        negative=negative,
        prompts=study.spec.prompts,
        settings=study.spec.settings,
    )
    return made


def ways_of_packs(packs: Mapping[str, Vector], randoms: int, seed: int, **how: Any) -> list[Way]:
    """Return each vector, and random vectors like it, as ways of steering; `how` are options of `Vector.at`."""
    ways = []
    for name, vector in packs.items():
        ways.append(Way(name, partial(vector.at, **how)))
        drawn = nulls(name, vector, randoms, seed)
        ways += [replace(way, at=partial(way.at, **how)) for way in drawn]
    return ways


def way_of(
    name: str, steering: Slider | PromptMethod | TokenEmbedding, schedule: Schedule, start_step: int
) -> Way:
    """Return a slider or a method as a way of steering; PCI, whose strength is a number of steps, has no schedule."""
    if isinstance(steering, PCI):
        return Way(name, steering.at)
    at: Callable[..., tuple[Edit, ...]] = steering.at
    return Way(name, partial(at, schedule=schedule, start_step=start_step))


def asked_steering(study: Study, steered: Sequence[Steering], **options: Any) -> SteeringSpec:
    """Make the spec of a trial of vectors and methods for one concept, on prompts that no vector was computed from.

    Raises:
        UserError: if they are not for the same concept, or point different ways.
    """
    towards = sorted({(each.concept, each.positive) for each in steered})
    if len(towards) != 1:
        each = " and ".join(f"{concept} (towards {positive})" for concept, positive in towards)
        raise UserError(
            "Ways of steering can be compared if they are for the same concept and point the same way; got "
            f"{each or 'none'}."
        )
    first, prompts = steered[0], study.spec.prompts
    known = first.concept in prompts.concepts and first.negative in prompts.concepts[first.concept]
    positive, negatives = ends(prompts, first.concept, first.positive, first.negative if known else "")
    own = {prompt for each in steered for prompt in _prompts(each)}
    values = {
        "concept": first.concept,
        "positive": positive,
        "negatives": negatives,
        "without": sorted(own),
        **options,
    }
    return validated(SteeringSpec, values, "Invalid steering")


def _is_path(name: str) -> bool:
    return name.endswith(".safetensors") or "/" in name


def _prompts(steering: Steering) -> list[str]:
    """Return the prompts that a direction or slider was computed from."""
    if isinstance(steering, Vector):
        return [example.prompt for example in steering.examples]
    if isinstance(steering, Slider):
        return [prompt for pair in steering.training.get("prompts", []) for prompt in pair]
    return []
