"""Concept Sliders: low-rank changes of a network's weights, as published with TADA (arXiv 2602.11910).

`pytorch_lora_weights.safetensors` has `<module>.lora_A.weight` [rank, in] and `<module>.lora_B.weight` [out, rank] of
each changed module; `train_config.json` has the settings, with rank (`r`) and `lora_alpha` below `lora_config`. The
change of a module's weight at strength α is α · lora_alpha / rank · B A.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.checks import slug, table
from workbench.artefacts.concepts import Concept, find_concept
from workbench.artefacts.sources import Origin, find_artefact
from workbench.tensor_files import load_tensors

WEIGHTS = "pytorch_lora_weights.safetensors"
_PART = re.compile(r"(?:transformer\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight")
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")


@dataclass(frozen=True)
class ConceptSlider(Artefact):
    """The factors of each changed module: `down` is A, `up` is B."""

    kind: ClassVar[str] = "lora"

    concept: Concept
    down: dict[str, Float[np.ndarray, "rank _in"]]
    up: dict[str, Float[np.ndarray, "_out rank"]]
    rank: int
    alpha: float
    layers: str
    origin: Origin

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"lora-{self.concept.name}-r{self.rank}-{self.layers}"

    @property
    def blocks(self) -> list[int]:
        """The blocks with a changed module."""
        found = {int(match[1]) for match in map(_BLOCK.search, self.down) if match}
        return sorted(found)

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays as they are written: `<module>.lora_A.weight`, `<module>.lora_B.weight`."""
        parts = {"A": self.down, "B": self.up}
        return {
            f"{module}.lora_{part}.weight": array
            for part, of_module in parts.items()
            for module, array in of_module.items()
        }

    def facts(self) -> dict[str, Any]:
        """What is written beside them."""
        told = {"rank": self.rank, "alpha": self.alpha, "layers": self.layers}
        return {**told, "modules": len(self.down), "blocks": self.blocks}


def read_lora(source: str, concept: str = "") -> ConceptSlider:
    """Read and check a published slider; `concept` is needed where the settings name none.

    Raises UserError for files that are missing, damaged or not of the form.
    """
    origin = find_artefact(source, WEIGHTS, ["train_config.json"], config_needed=True)
    what = str(origin.file)
    settings = origin.settings
    found = find_concept(concept or settings.get("concept"), source)
    parts: dict[str, dict[str, np.ndarray]] = {"A": {}, "B": {}}
    for key, value in load_safetensors(origin.file).items():
        match = _PART.fullmatch(key)
        if match is None:
            raise UserError(f"{what} has the weight {key[:80]}, which is no part of a low-rank change.")
        parts[match[2]][match[1]] = table(value, f"{what}, {key}")
    rank = _rank(parts, what)
    config = settings.get("lora_config", {})
    if not isinstance(config, Mapping) or config.get("r", rank) != rank:
        raise UserError(f"{what} has changes of rank {rank}, which its settings do not say.")
    alpha = config.get("lora_alpha", 1)
    if type(alpha) not in (int, float):
        raise UserError(f"{source} has settings whose lora_alpha is no number.")
    layers = slug(str(settings.get("layers", "all")), f"the layer set of {source}")
    return ConceptSlider(found, parts["A"], parts["B"], rank, float(alpha), layers, origin)


def load_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, bfloat16 as float32.

    Raises UserError as `load_tensors` does, and for a file without arrays.
    """
    real = file.resolve()  # the hub's cache has links
    weights, _ = load_tensors(real.parent, real.name)
    if not weights:
        raise UserError(f"{file} has no arrays.")
    return weights


def _rank(parts: dict[str, dict[str, np.ndarray]], what: str) -> int:
    """The rank of all changes; raises UserError where the two factors of a module do not fit."""
    down, up = parts["A"], parts["B"]
    alone = sorted(set(down) ^ set(up))
    if alone:
        raise UserError(f"{what} has one factor only of {alone[0][:80]}, where two are needed.")
    ranks = {array.shape[0] for array in down.values()} | {array.shape[1] for array in up.values()}
    if len(ranks) != 1:
        raise UserError(f"{what} has factors of different ranks ({', '.join(map(str, sorted(ranks)))}).")
    return ranks.pop()
