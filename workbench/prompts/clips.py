"""Clips from prompts, as a notebook asks for them."""

from collections.abc import Sequence
from typing import Any

from cache.errors import UserError
from workbench.engine.runs import Clip
from workbench.seeds import LARGEST_SEED


def clips(
    prompts: str | Sequence[str], seed: int | Sequence[int] = 0, lyrics: str | Sequence[str] = ""
) -> list[Clip]:
    """The clips of some prompts.

    `seed` draws the initial noise, so that clips of one seed start alike. Of prompts, seeds and lyrics each is one for
    all clips, or a list with one for each clip.

    Raises:
        UserError: for lists of different lengths, an empty one, an empty prompt, and a seed that is no seed.
    """
    given: dict[str, list[Any]] = {
        "prompts": _listed(prompts),
        "seeds": _listed(seed),
        "lyrics": _listed(lyrics),
    }
    counts = {name: len(values) for name, values in given.items()}
    n = max(counts.values())
    if any(count not in (1, n) for count in counts.values()):
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"{told}: give lists of one length, or one value for all clips.")
    _check(**given)
    in_full = {name: values * n if len(values) == 1 else values for name, values in given.items()}
    return [Clip(*of_clip) for of_clip in zip(*in_full.values(), strict=True)]


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]


def _check(prompts: list[Any], seeds: list[Any], lyrics: list[Any]) -> None:
    wrong = [text for text in prompts if not isinstance(text, str) or not text.strip()]
    wrong += [text for text in lyrics if not isinstance(text, str)]
    if wrong:
        raise UserError(
            f"A clip's prompt is a text that is not empty, and its lyrics are a text, not {wrong[0]!r}."
        )
    not_seeds = [seed for seed in seeds if type(seed) is not int or not 0 <= seed <= LARGEST_SEED]
    if not_seeds:
        raise UserError(f"A seed is a whole number from 0 to {LARGEST_SEED}, not {not_seeds[0]!r}.")
