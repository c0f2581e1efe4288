"""Concept Sliders: LoRAs, as published with TADA (arXiv 2602.11910).

`pytorch_lora_weights.safetensors` has `<module>.lora_A.weight` [rank, in] and `<module>.lora_B.weight` [out, rank] for
each adapted module; `train_config.json` has the settings, with the rank (`r`) and `lora_alpha` under `lora_config`.
At strength α a module's weight changes by α · lora_alpha / rank · B A. PEFT's configuration in the file's own metadata,
which diffusers writes, has precedence over that in the settings.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.checks import slug, table
from workbench.artefacts.concepts import find_concept
from workbench.artefacts.sources import find_artefact
from workbench.documents import parse_document
from workbench.tensor_files import load_tensors

WEIGHTS = "pytorch_lora_weights.safetensors"
_OTHER_KINDS = ("use_dora", "use_rslora", "alpha_pattern", "rank_pattern")
CONFIGURATION = "lora_adapter_metadata"
"""Diffusers' metadata entry with PEFT's configuration as JSON."""
_PREFIX = r"(?:base_model\.model\.)?(?:(?:transformer|unet)\.)?"  # PEFT's, and a pipeline's for its network
_PART = re.compile(rf"{_PREFIX}(.+)\.lora_([AB])(?:\.\w+)?\.weight")
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class ConceptSlider(Artefact):
    """The LoRA factors of each adapted module: `down` is A, `up` is B."""

    kind: ClassVar[str] = "lora"

    down: dict[str, Float[np.ndarray, "rank _in"]]
    up: dict[str, Float[np.ndarray, "_out rank"]]
    rank: int
    alpha: float
    layers: str

    @property
    def name(self) -> str:
        return f"lora-{self.concept.name}-r{self.rank}-{self.layers}"

    @property
    def blocks(self) -> list[int]:
        """The blocks that have an adapted module."""
        return sorted({int(match[1]) for match in map(_BLOCK.search, self.down) if match})

    def arrays(self) -> dict[str, np.ndarray]:
        """`<module>.lora_A.weight` and `<module>.lora_B.weight`."""
        parts = {"A": self.down, "B": self.up}
        return {
            f"{module}.lora_{part}.weight": array
            for part, by_module in parts.items()
            for module, array in by_module.items()
        }

    def metadata(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "alpha": self.alpha,
            "layers": self.layers,
            "modules": len(self.down),
            "blocks": self.blocks,
        }


def read_lora(source: str, concept: str = "") -> ConceptSlider:
    """Read and validate a published slider; `concept` is required if the settings do not give one.

    Raises:
        UserError: if files are missing, damaged or in another format.
    """
    origin = find_artefact(source, WEIGHTS, ["train_config.json"], config_needed=True)
    what = str(origin.file)
    settings = origin.settings
    steered = find_concept(concept or settings.get("concept"), source)
    parts: dict[str, dict[str, np.ndarray]] = {"A": {}, "B": {}}
    weights, texts = _load(origin.file)
    for key, value in weights.items():
        match = _PART.fullmatch(key)
        if match is None:
            raise UserError(f"{what} has the weight {key[:80]}, which is not a LoRA factor.")
        parts[match[2]][match[1]] = table(value, f"{what}, {key}")
    rank = _rank(parts, what)
    config = _configuration(settings.get("lora_config", {}), texts, what)
    if config.get("r", rank) != rank:
        raise UserError(f"{what} has factors of rank {rank}, but its settings give another rank.")
    alpha = config.get("lora_alpha", 1)
    if type(alpha) not in (int, float) or not 0 < alpha <= sys.float_info.max:
        raise UserError(f"{source} must have a positive number as lora_alpha in its settings.")
    layers = slug(str(settings.get("layers", "all")), f"the layer set of {source}")
    return ConceptSlider(
        concept=steered,
        origin=origin,
        down=parts["A"],
        up=parts["B"],
        rank=rank,
        alpha=float(alpha),
        layers=layers,
    )


def load_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Load the arrays of a safetensors file, bfloat16 as float32.

    Raises:
        UserError: if the file has no arrays, or `load_tensors` cannot read it.
    """
    weights, _ = _load(file)
    return weights


def _load(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    real = file.resolve()  # files in the hub's cache are links
    weights, texts = load_tensors(real.parent, real.name)
    if not weights:
        raise UserError(f"{file} has no arrays.")
    return weights, texts


def _configuration(published: Any, texts: Mapping[str, str], what: str) -> dict[str, Any]:
    """Return the configuration in the settings, updated by that in the file's metadata.

    Raises:
        UserError: if it is damaged, or not that of a plain LoRA with one scale.
    """
    if not isinstance(published, Mapping):
        raise UserError(f"The settings of {what} must have a mapping as lora_config.")
    try:
        config = {**published, **parse_document(texts.get(CONFIGURATION, "{}"))}
    except ValueError as error:
        raise UserError(
            f"{what} has a damaged configuration ({' '.join(str(error).split())[:200]}). Get the file again."
        ) from error
    for name in _OTHER_KINDS:
        if config.get(name):
            raise UserError(f"{what} must be a plain LoRA with one scale; its configuration has {name}.")
    return config


def _rank(parts: dict[str, dict[str, np.ndarray]], what: str) -> int:
    """Return the rank of all factors; raise UserError if the factors of a module do not match."""
    down, up = parts["A"], parts["B"]
    alone = sorted(set(down) ^ set(up))
    if alone:
        raise UserError(f"{what} has only one of the two LoRA factors of {alone[0][:80]}.")
    ranks = {array.shape[0] for array in down.values()} | {array.shape[1] for array in up.values()}
    if len(ranks) != 1:
        raise UserError(f"{what} must have factors of one rank; it has {', '.join(map(str, sorted(ranks)))}.")
    return ranks.pop()
