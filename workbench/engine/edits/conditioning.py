"""Edits of what cross-attentions read: blends of prompts, and directions in keys and values."""

from collections.abc import Sequence
from typing import Literal, Unpack

from workbench.engine.edits.edit import Edit, Source, listed, make_edit
from workbench.engine.edits.window import WindowOptions
from workbench.engine.tensors import HashedTensor, Numbers


def blend(
    sites: str | Sequence[str],
    sources: Source | Sequence[Source],
    weights: float | Sequence[float],
    **window: Unpack[WindowOptions],
) -> Edit:
    """Blend conditionings: cross-attentions read the weighted sum of the sources' keys and of their values.

    The padding mask and positions are those of the first source, and must be the same for all: prompts whose
    conditioning tokens are at different positions raise an error, because adding a word to padding is meaningless.
    """
    return make_edit("blend", sites, sources, window, "conditioning", weights=listed(weights))


def add_to_conditioning(
    vector: Numbers,
    sites: str | Sequence[str],
    part: Literal["keys", "values"],
    strength: float = 1.0,
    *,
    source: Source | None = None,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Add `strength * vector` to the keys or the values of conditioning tokens, such as segments=("word:song",).

    Nothing is taken from the `source`, which only says where the prompts differ, for the segments `swapped`, `before`
    and `after`.
    """
    sources = () if source is None else (source,)
    given: WindowOptions = {**window, "parts": (part,)}
    values = {"vector": HashedTensor.of(vector), "strength": strength}
    return make_edit("add_to_conditioning", sites, sources, given, "conditioning", **values)
