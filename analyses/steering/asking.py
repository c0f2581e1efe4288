"""Make sites, vectors, sliders and prompt methods from a user's options."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import xarray as xr

from analyses.sae.names import has_none, saes_of_sites
from analyses.steering.austeer import AUSteer
from analyses.steering.caa import CAA
from analyses.steering.capture import Method, PairOptions, fit
from analyses.steering.free_sliders import free_sliders
from analyses.steering.pairs import ends
from analyses.steering.pci import pci
from analyses.steering.probe_direction import Probe
from analyses.steering.prompt_method import PromptMethod
from analyses.steering.sae_features import SAEFeatures
from analyses.steering.slider import Slider, load_slider
from analyses.steering.study_files import find_pack, slider_file
from analyses.steering.text_embedding import text_embedding
from analyses.steering.token_embedding import TokenEmbedding, token_embedding
from analyses.steering.vector import Vector, load_vector
from analyses.steering_spec import METHODS, PROMPT_METHODS
from cache.errors import UserError
from workbench.engine.sites import check_blocks, parse_blocks
from workbench.models.base import AudioDiffusionModel
from workbench.sae.base import SAE
from workbench.studies.study import Study
from workbench.validation import validated

SUFFIX = ".safetensors"
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
    blocks, dot, part = text.partition(".")
    if dot and not part:
        raise UserError(
            f"'{text}' names no part of the blocks after its dot, such as .mlp. Leave out the dot."
        )
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
    if len(set(chosen)) < len(chosen):
        raise UserError(f"'{text}' has a block twice. Give each block once.")
    return tuple(f"tf{block}.{part or PART}" for block in sorted(chosen))


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


def check_options(method: str, own: Mapping[str, Any]) -> None:
    """Raise UserError if a method is unknown, or its own options are; before a model is loaded."""
    if method not in METHODS:
        raise UserError(f"Unknown method '{method}'. Methods: {', '.join(METHODS)}.")
    for name, field in CLASSES[method].model_fields.items():
        if field.is_required() and field.description and name not in own:
            raise UserError(f"{method} needs {name}, {field.description}. Give it (--{name}).")
    _method(method, own, {})


def _method(method: str, own: Mapping[str, Any], saes: Mapping[str, SAE]) -> Method:
    given = {"saes": saes} if CLASSES[method] is SAEFeatures else {}
    return validated(CLASSES[method], {**own, **given}, f"Invalid options of {method}")


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
    check_options(method, own)
    chosen = asked_sites(study, model, concept, sites)
    (vector,) = fit_vectors(study, model, [(method, own)], concept, chosen, **options)
    return vector


def fit_vectors(
    study: Study,
    model: AudioDiffusionModel,
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    concept: str,
    sites: Sequence[str],
    **options: Unpack[PairOptions],
) -> list[Vector]:
    """Compute vectors with several methods, each with its own options, from the same pairs; see `fit_vector`."""
    saes = _all_saes(study, sites) if "sae-features" in dict(methods) else {}
    of_sites = {site: sae for site, (_, sae) in saes.items()}
    together: PairOptions = {**options, **of_study(study)}
    fitted = [_method(method, own, of_sites) for method, own in methods]
    vectors = fit(model, concept, sites, fitted, **together)
    for vector in vectors:
        if not any(norms.values.any() for norms in vector.norms.values()):
            raise UserError(
                f"The prompts of the pairs make no difference at {', '.join(sites)} in the captured passes, so that "
                "the vector is zero. Choose other sites (--sites) or passes (--pass)."
            )
    return [_with_names(vector, saes) for vector in vectors]


def _with_names(vector: Vector, saes: Mapping[str, tuple[str, SAE]]) -> Vector:
    """Return a vector with the names that its autoencoders have in the study."""
    named = (each.model_copy(update={"name": saes[each.site][0]}) for each in vector.saes)
    return replace(vector, saes=tuple(named))


def _all_saes(study: Study, sites: Sequence[str]) -> dict[str, tuple[str, SAE]]:
    """Return name and autoencoder of every site; raise UserError for a site without one."""
    found = saes_of_sites(study, sites)
    for site in sites:
        if site not in found:
            raise UserError(has_none(study, f"at '{site}'"))
    return found


def of_study(study: Study) -> PairOptions:
    """Return the options of pairs that are a study's: its prompt set, settings and lyrics."""
    return {
        "prompts": study.spec.prompts,
        "settings": study.spec.settings,
        "lyrics": study.spec.lyrics,
    }


def check_name(name: str) -> None:
    """Raise UserError for a name that a pack cannot have."""
    if not re.fullmatch(r"[\w.+-]*", name) or name.startswith("-"):
        raise UserError(
            f"The name of a pack may have letters, digits, and . + - _, but not begin with -; got '{name[:80]}'."
        )


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


def asked_steering(
    study: Study, packs: Sequence[str], sliders: Sequence[str]
) -> list[tuple[str, Vector | Slider]]:
    """Load packs and sliders, given by name or file, with the names that results show: those of the files.

    Raises:
        UserError: as `asked_pack` and `asked_slider`; or if two packs, or two sliders, have the same name.
    """
    return [
        *((name, asked_pack(study, given)) for name, given in _by_name(packs)),
        *((name, asked_slider(study, given)) for name, given in _by_name(sliders)),
    ]


def _by_name(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return names or files with the name that results show for each."""
    found: dict[str, str] = {}
    for given in names:
        name = Path(given).name.removesuffix(SUFFIX)
        if name in found:
            raise UserError(
                f"{found[name]} and {given} would have the same name in results, '{name}'. Give each one once, and "
                "rename one of two files with the same name."
            )
        found[name] = given
    return list(found.items())


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


def _is_path(name: str) -> bool:
    return name.endswith(SUFFIX) or "/" in name
