"""The clips that a vector is computed from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from workbench.prompts.prompt_sets import Pair


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clip that a vector was computed from: its prompt and lyrics, the seed of its noise, and its value.

    The value is one of the concept, or the number of a descriptor. Examples with the same number `pair` are a pair,
    which differ only in their values; None without pairs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str
    lyrics: str
    seed: int
    value: str | float
    pair: int | None


def pair_examples(pairs: Sequence[Pair], seeds: Sequence[int], lyrics: str = "") -> tuple[Example, ...]:
    """Return both clips of each pair, the clean one first, with the seed of the pair."""
    return tuple(
        Example(
            prompt=prompt.text, lyrics=lyrics, seed=int(seed), value=prompt.labels[pair.concept], pair=number
        )
        for number, (pair, seed) in enumerate(zip(pairs, seeds, strict=True))
        for prompt in (pair.clean, pair.corrupt)
    )
