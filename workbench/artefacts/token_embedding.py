"""Token-embedding directions, as published with TADA (arXiv 2602.11910).

`<concept>_direction.pt` is a dict of `direction`, a torch tensor [hidden] to add to the text encoder's state at the
concept's token, `concept` and `hidden_dim`.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from workbench.artefacts.base import Artefact
from workbench.artefacts.checks import declared, mapping, vector
from workbench.artefacts.concepts import find_concept
from workbench.artefacts.sources import find_artefact
from workbench.artefacts.torch_files import read_tensors

# Both prompts need a token at the same position: other methods omit the word here, this one uses "instrument".
_INSTRUMENTS = ("piano", "violin")
# TADA adds the direction at this word of the neutral prompt.
_WORDS = {
    **dict.fromkeys(_INSTRUMENTS, "instrument"),
    **dict.fromkeys(("mood", "tempo", "rock_genre", "electronic_music"), "song"),
    **dict.fromkeys(("vocal_gender", "vocal_style"), "vocal"),
    "guitar_electronic": "guitar",
}


@dataclass(frozen=True, kw_only=True)
class TokenDirection(Artefact):
    """Mean text-encoder state at the concept's token: positive prompts minus negative prompts."""

    kind: ClassVar[str] = "token-embedding"

    direction: Float[np.ndarray, " hidden"]

    @property
    def word(self) -> str:
        """The word of the steered prompt at whose token the direction is added."""
        return _WORDS[self.concept.name]

    @property
    def name(self) -> str:
        return f"token-embedding-{self.concept.name}"

    def arrays(self) -> dict[str, np.ndarray]:
        """`direction` [hidden]."""
        return {"direction": self.direction}

    def metadata(self) -> dict[str, Any]:
        return {"hidden_dim": len(self.direction)}


def read_token_embedding(source: str, concept: str = "") -> TokenDirection:
    """Read and validate a published direction: the file, or a folder with one.

    Raises:
        UserError: if files are missing, unsafe, damaged or in another format.
    """
    origin = find_artefact(source, "*_direction.pt")
    what = str(origin.file)
    contents = mapping(read_tensors(origin.file), what)
    steered = find_concept(concept or contents.get("concept"), what)
    if steered.name in _INSTRUMENTS:
        steered = replace(steered, negative="an instrument", negative_prompt="{p}, with instrument")
    direction = vector(contents.get("direction"), f"{what}, direction")
    declared(contents.get("hidden_dim", len(direction)), len(direction), f"The width of {what}")
    return TokenDirection(concept=steered, origin=origin, direction=direction)
