"""Token-embedding directions, as published with TADA (arXiv 2602.11910).

`<concept>_direction.pt` holds a dictionary: `direction`, a torch tensor [hidden] to add to the text encoder's state at
the concept's token, `concept` and `hidden_dim`.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.checks import mapping, vector
from workbench.artefacts.concepts import Concept, find_concept
from workbench.artefacts.sources import Origin, find_artefact
from workbench.artefacts.torch_files import read_tensors

# Both prompts need a token at the same place: where other methods leave the word out, this one says "instrument".
_INSTRUMENTS = ("piano", "violin")


@dataclass(frozen=True)
class TokenDirection(Artefact):
    """Mean state of the positive prompts at the concept's token minus that of the negative ones."""

    kind: ClassVar[str] = "token-embedding"

    concept: Concept
    direction: Float[np.ndarray, " hidden"]
    origin: Origin

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"token-embedding-{self.concept.name}"

    def arrays(self) -> dict[str, np.ndarray]:
        """Its array as it is written: `direction` [hidden]."""
        return {"direction": self.direction}

    def facts(self) -> dict[str, Any]:
        """What is written beside it."""
        return {"hidden_dim": len(self.direction)}


def read_token_embedding(source: str, concept: str = "") -> TokenDirection:
    """Read and check a published direction: the file, or a folder with one.

    Raises UserError for files that are missing, unsafe, damaged or not of the form.
    """
    origin = find_artefact(source, "*_direction.pt")
    what = str(origin.file)
    held = mapping(read_tensors(origin.file), what)
    found = find_concept(concept or held.get("concept"), what)
    if found.name in _INSTRUMENTS:
        found = replace(found, negative="an instrument", negative_prompt="{p}, with instrument")
    direction = vector(held.get("direction"), f"{what}, direction")
    if held.get("hidden_dim", len(direction)) != len(direction):
        raise UserError(f"{what} says {held['hidden_dim']} dimensions and has {len(direction)}.")
    return TokenDirection(found, direction, origin)
