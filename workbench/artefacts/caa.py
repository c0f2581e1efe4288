"""Steering vectors by contrastive activation addition, as published with TADA (arXiv 2602.11910, Eq. 6).

A folder has `sv.pkl` and `config.json`. `sv.pkl` holds a dictionary: by (step, pass), pass 0 being conditional and 1
unconditional (or by step alone: conditional only), the sites of the network, and by site a list with one vector. Sites
are `tf6`, the cross-attention of a block, or, for a network without a row of equal blocks, a module's full name.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.checks import Room, consecutive, mapping, vector
from workbench.artefacts.concepts import Concept, find_concept
from workbench.artefacts.pickles import read_pickle
from workbench.artefacts.sources import Origin, find_artefact

PASSES = ("cond", "null")
LYRICS = "The lyrics in the settings were recorded with the vectors and not used: the vectors were made without lyrics."
_UNIT = 1e-3  # what float32 and float16 leave of a norm of 1
_BLOCK = re.compile(r"tf\d+")
_UNET = re.compile(
    r"\.?(?:unet\.)?(?:(down|up)_blocks\.(\d+)|(mid)_block)\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2"
)


@dataclass(frozen=True)
class CaaVectors(Artefact):
    """Vectors by site and pass, a row a step: mean activation of the positive prompts minus that of the negative ones.

    `unit_norm` tells whether each has length 1, as the strengths of the paper suppose (a vector of zeros stays one).
    """

    kind: ClassVar[str] = "caa"

    concept: Concept
    vectors: dict[tuple[str, str], Float[np.ndarray, "_step _channel"]]
    unit_norm: bool
    origin: Origin

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"caa-{self.concept.name}"

    @property
    def sites(self) -> dict[str, int]:
        """Its sites, each with its width."""
        return {site: array.shape[1] for (site, _), array in self.vectors.items()}

    @property
    def steps(self) -> int:
        """Its denoising steps."""
        return len(next(iter(self.vectors.values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays as they are written: `tf6.cross_attn.cond` [step, channel]."""
        return {f"{site}.{name}": array for (site, name), array in self.vectors.items()}

    def facts(self) -> dict[str, Any]:
        """What is written beside them."""
        return {
            "sites": self.sites,
            "steps": self.steps,
            "passes": sorted({name for _, name in self.vectors}),
            "unit_norm": self.unit_norm,
            "note": LYRICS if self.origin.settings.get("lyrics") else "",
        }


def read_caa(source: str, concept: str = "") -> CaaVectors:
    """Read and check published vectors; `concept` is needed where the settings name none.

    Raises UserError for files that are missing, unsafe, damaged or not of the form.
    """
    origin = find_artefact(source, "sv.pkl", ["config.json"], config_needed=True)
    what = str(origin.file)
    found = find_concept(concept or origin.settings.get("concept"), source)
    by_step: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    room = Room(origin.file)
    for key, of_sites in mapping(read_pickle(origin.file), what).items():
        step, name = _step_and_pass(key, what)
        for site, vectors in mapping(of_sites, f"{what}, step {step}").items():
            where = f"{what}, step {step}, {name} pass, site {str(site)[:80]}"
            if not isinstance(site, str) or not isinstance(vectors, list) or len(vectors) != 1:
                raise UserError(f"{where}: a list of one vector is needed.")
            room.take(vectors[0])
            by_step.setdefault((site_name(site), name), {})[step] = vector(vectors[0], where)
    vectors = {key: _stack(of_step, f"{what}, {' '.join(key)}") for key, of_step in by_step.items()}
    _check_complete(vectors, origin, what)
    return CaaVectors(found, vectors, _unit_norm(vectors, origin, what), origin)


def site_name(key: str) -> str:
    """A published key as a site: `tf6` is `tf6.cross_attn`, and the module's name `.unet.up_blocks.1.attentions.5.…`
    of AudioLDM2 is `up1tf5attn0.cross_attn`, as its blocks are called here. Others stay as they are.
    """
    module = _UNET.fullmatch(key)
    if module is not None:
        level, number, middle, attention, block = module.groups()
        return f"{middle or level + number}tf{attention}attn{block}.cross_attn"
    return f"{key}.cross_attn" if _BLOCK.fullmatch(key) else key


def _step_and_pass(key: object, what: str) -> tuple[int, str]:
    step, number = key if isinstance(key, tuple) and len(key) == 2 else (key, 0)
    if type(step) is not int or type(number) is not int or not 0 <= number < len(PASSES):
        raise UserError(f"{what} has a key that is no (step, pass), pass being 0 or 1.")
    return step, PASSES[number]


def _stack(of_step: dict[int, np.ndarray], what: str) -> Float[np.ndarray, "step channel"]:
    consecutive(of_step, what)
    rows = [of_step[step] for step in range(len(of_step))]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise UserError(f"{what} has vectors of different widths ({', '.join(map(str, sorted(widths)))}).")
    return np.stack(rows)


def _check_complete(vectors: dict[tuple[str, str], np.ndarray], origin: Origin, what: str) -> None:
    """Every site has every pass, with as many steps as the settings say and one width."""
    sites, passes = {site for site, _ in vectors}, {name for _, name in vectors}
    missing = [f"{site} {name}" for site in sites for name in passes if (site, name) not in vectors]
    if missing:
        raise UserError(f"{what} lacks vectors: {', '.join(sorted(missing)[:5])}.")
    counts = {len(array) for array in vectors.values()}
    asked = origin.settings.get("num_inference_steps", next(iter(counts)))
    if counts != {asked}:
        raise UserError(f"{what} has vectors of {sorted(counts)} steps, and its settings say {asked}.")
    for site in sites:
        if len({vectors[site, name].shape[1] for name in passes}) > 1:
            raise UserError(f"{what} has different widths for the passes of {site}.")


def _unit_norm(vectors: dict[tuple[str, str], np.ndarray], origin: Origin, what: str) -> bool:
    """Whether all vectors have length 1 (or are zero); settings without `normalize_sv: false` promise it."""
    norms = np.concatenate([np.linalg.norm(array.astype(np.float64), axis=1) for array in vectors.values()])
    unit = bool((np.abs(norms[norms > 0] - 1) < _UNIT).all())
    if not unit and origin.settings.get("normalize_sv", True):
        raise UserError(
            f"{what} has vectors of lengths {norms.min():.3g} to {norms.max():.3g}, where published ones have length 1."
        )
    return unit
