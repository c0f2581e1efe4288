"""Make clips from prompts in a notebook."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cache.errors import UserError
from workbench.engine.runs import Clip


def clips(
    prompts: str | Sequence[str], seed: int | Sequence[int] = 0, lyrics: str | Sequence[str] = ""
) -> list[Clip]:
    """Make clips of prompts.

    `seed` determines the initial noise, so clips with the same seed start from the same noise. Prompts, seeds and
    lyrics may each be a list with one per clip, or one value for all clips.

    Raises:
        UserError: for lists of different lengths, an empty list, an empty prompt, or an invalid seed.
    """
    given: dict[str, list[Any]] = {
        "prompts": _listed(prompts),
        "seeds": _listed(seed),
        "lyrics": _listed(lyrics),
    }
    counts = {name: len(values) for name, values in given.items()}
    for name, count in counts.items():
        if not count:
            raise UserError(f"The list of {name} is empty. Give at least one.")
    n = max(counts.values())
    if any(count not in (1, n) for count in counts.values()):
        given_counts = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"Lists must have the same length, or one value for all clips; got {given_counts}.")
    full = {name: values * n if len(values) == 1 else values for name, values in given.items()}
    return [Clip(*of_clip) for of_clip in zip(*full.values(), strict=True)]


def _listed(values: Any) -> list[Any]:
    return (
        list(values)
        if isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
        else [values]
    )
