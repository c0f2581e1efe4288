"""Steering vectors by contrastive activation addition, as published with TADA (arXiv 2602.11910, Eq. 6).

A folder has `sv.pkl` and `config.json`. `sv.pkl` is a dict of (step, pass) → site → list of one vector; pass 0 is
conditional, 1 unconditional (keys that are a step alone are conditional). Sites are `tf6`, the cross-attention of a
block, or, for a network that is not a stack of equal blocks, the full name of a module.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.checks import MemoryBudget, consecutive, declared, mapping, vector
from workbench.artefacts.concepts import find_concept
from workbench.artefacts.pickles import read_pickle
from workbench.artefacts.sources import Origin, find_artefact

PASSES = ("cond", "null")
LYRICS = "The settings list lyrics, but the vectors were computed without lyrics."
_UNIT_TOLERANCE = 1e-3  # rounding of float32 and float16
_BLOCK = re.compile(r"tf\d+")
_UNET = re.compile(
    r"\.?(?:unet\.)?(?:(down|up)_blocks\.(\d+)|(mid)_block)\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2"
)


@dataclass(frozen=True, kw_only=True)
class CaaVectors(Artefact):
    """Vectors by site and pass, one row per step: mean activation of the positive minus that of the negative prompts.

    `unit_norm` is whether all non-zero vectors have length 1, which the strengths in the paper assume.
    """

    kind: ClassVar[str] = "caa"

    vectors: dict[tuple[str, str], Float[np.ndarray, "_step _channel"]]
    unit_norm: bool

    @property
    def name(self) -> str:
        return f"caa-{self.concept.name}"

    @property
    def sites(self) -> dict[str, int]:
        return {site: array.shape[1] for (site, _), array in self.vectors.items()}

    @property
    def steps(self) -> int:
        return len(next(iter(self.vectors.values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """`tf6.cross_attn.cond` [step, channel]."""
        return {f"{site}.{name}": array for (site, name), array in self.vectors.items()}

    def metadata(self) -> dict[str, Any]:
        return {
            "sites": self.sites,
            "steps": self.steps,
            "passes": sorted({name for _, name in self.vectors}),
            "unit_norm": self.unit_norm,
            "note": LYRICS if self.origin.settings.get("lyrics") else "",
        }


def read_caa(source: str, concept: str = "") -> CaaVectors:
    """Read and validate published vectors; `concept` is required if the settings do not give one.

    Raises:
        UserError: if files are missing, unsafe, damaged or in another format.
    """
    origin = find_artefact(source, "sv.pkl", ["config.json"], config_needed=True)
    what = str(origin.file)
    steered = find_concept(concept or origin.settings.get("concept"), source)
    by_step: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    budget = MemoryBudget(origin.file)
    for key, by_site in mapping(read_pickle(origin.file), what).items():
        step, name = _step_and_pass(key, what)
        for site, vectors in mapping(by_site, f"{what}, step {step}").items():
            where = f"{what}, step {step}, {name} pass, site {str(site)[:80]}"
            if not isinstance(site, str) or not isinstance(vectors, list) or len(vectors) != 1:
                raise UserError(f"{where} must be a list of one vector.")
            budget.charge(vectors[0])
            by_step.setdefault((site_name(site), name), {})[step] = vector(vectors[0], where)
    vectors = {key: _stack(rows, f"{what}, {' '.join(key)}") for key, rows in by_step.items()}
    _check_complete(vectors, origin, what)
    unit_norm = _unit_norm(vectors, origin, what)
    return CaaVectors(concept=steered, origin=origin, vectors=vectors, unit_norm=unit_norm)


def site_name(key: str) -> str:
    """Return the site that a published key stands for; unknown keys are returned unchanged.

    `tf6` is `tf6.cross_attn`; AudioLDM2's module `.unet.up_blocks.1.attentions.5.…` is `up1tf5attn0.cross_attn`.
    """
    module = _UNET.fullmatch(key)
    if module is not None:
        level, number, middle, attention, block = module.groups()
        return f"{middle or level + number}tf{attention}attn{block}.cross_attn"
    return f"{key}.cross_attn" if _BLOCK.fullmatch(key) else key


def _step_and_pass(key: object, what: str) -> tuple[int, str]:
    step, number = key if isinstance(key, tuple) and len(key) == 2 else (key, 0)
    if type(step) is not int or type(number) is not int or not 0 <= number < len(PASSES):
        raise UserError(f"{what} must have keys (step, pass), with pass 0 or 1.")
    return step, PASSES[number]


def _stack(by_step: dict[int, np.ndarray], what: str) -> Float[np.ndarray, "step channel"]:
    consecutive(by_step, what)
    rows = [by_step[step] for step in range(len(by_step))]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise UserError(
            f"{what} must have vectors of one width; it has {', '.join(map(str, sorted(widths)))}."
        )
    return np.stack(rows)


def _check_complete(vectors: dict[tuple[str, str], np.ndarray], origin: Origin, what: str) -> None:
    """Raise UserError unless every site has every pass, with the number of steps in the settings and one width."""
    sites, passes = {site for site, _ in vectors}, {name for _, name in vectors}
    missing = [f"{site} {name}" for site in sites for name in passes if (site, name) not in vectors]
    if missing:
        raise UserError(f"{what} lacks the vectors of {', '.join(sorted(missing)[:5])}.")
    for array in vectors.values():
        declared(
            origin.settings.get("num_inference_steps", len(array)),
            len(array),
            f"The number of steps of {what}",
        )
    if len({len(array) for array in vectors.values()}) > 1:
        raise UserError(f"{what} must have as many steps at each site, in each pass.")
    for site in sites:
        if len({vectors[site, name].shape[1] for name in passes}) > 1:
            raise UserError(f"{what} must have one width for all passes of {site}.")


def _unit_norm(vectors: dict[tuple[str, str], np.ndarray], origin: Origin, what: str) -> bool:
    """Whether all non-zero vectors have length 1; raise UserError if the settings say so and it is not true."""
    norms = np.concatenate([np.linalg.norm(array.astype(np.float64), axis=1) for array in vectors.values()])
    unit = bool((np.abs(norms[norms > 0] - 1) < _UNIT_TOLERANCE).all())
    if not unit and origin.settings.get("normalize_sv", True):
        raise UserError(
            f"{what} must have vectors of length 1 unless its settings say normalize_sv: false; their lengths are "
            f"{norms.min():.3g} to {norms.max():.3g}."
        )
    return unit
