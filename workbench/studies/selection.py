"""What of a run is kept, and how it is run, as a user writes it: "8 stratified", "every 4", "cond,null", "omega=7"."""

import math
import re
from collections.abc import Sequence
from typing import get_args

import numpy as np
from scipy.optimize import linear_sum_assignment

from cache.errors import UserError
from cache.plan import TokenReduction
from workbench.engine.edits import Pass


def parse_steps(text: str, sigmas: Sequence[float]) -> tuple[int, ...]:
    """Step indices, ascending: "all", indices such as "0,3,7", or "8 stratified" (see `stratified_steps`).

    Raises:
        UserError: for anything else, or more steps than there are.
    """
    if text == "all":
        return tuple(range(len(sigmas)))
    stratified = re.fullmatch(r"(\d+) +stratified", text.strip())
    if stratified:
        return stratified_steps(sigmas, int(stratified[1]))
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise UserError(f"'{text}' are not steps: write indices such as 0,3,7, or '8 stratified', or 'all'.")
    return tuple(sorted({int(part) for part in text.split(",")}))


def stratified_steps(sigmas: Sequence[float], n: int) -> tuple[int, ...]:
    """`n` steps that cover the noise levels evenly, ascending.

    The range from the smallest to the largest sigma is cut into `n` equal strata, and each gets the step nearest to its
    middle, no step twice (the assignment with the smallest sum of distances).

    Raises:
        UserError: if `n` is not between 1 and the number of steps.
    """
    if not 1 <= n <= len(sigmas):
        raise UserError(f"{n} steps cannot be kept of a run that has {len(sigmas)}.")
    levels = np.asarray(sigmas, dtype=np.float64)
    edges = np.linspace(levels.max(), levels.min(), n + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    _, steps = linear_sum_assignment(np.abs(middles[:, None] - levels[None, :]))
    return tuple(sorted(int(step) for step in steps))


def parse_tokens(text: str, tokens: int) -> TokenReduction:
    """Which of a clip's `tokens` are kept: "all", "every 4", "mean 4" (of each 4 neighbours), or "mean" (of all).

    Raises:
        UserError: for anything else.
    """
    words = text.split()
    if words == ["all"]:
        return TokenReduction()
    if words == ["mean"]:
        return TokenReduction(kind="mean", size=tokens)
    if len(words) == 2 and words[0] in ("every", "mean") and words[1].isdecimal() and int(words[1]) >= 1:
        return TokenReduction(kind="stride" if words[0] == "every" else "mean", size=int(words[1]))
    raise UserError(f"'{text}' are not tokens: write 'all', 'every 4', 'mean 4', or 'mean'.")


def parse_passes(text: str) -> tuple[Pass, ...]:
    """Guidance passes, such as "cond,null".

    Raises:
        UserError: for unknown passes, and where one is named twice.
    """
    names = [name.strip() for name in text.split(",")]
    known = {str(name): name for name in get_args(Pass)}
    if not set(names) <= set(known) or len(set(names)) != len(names):
        raise UserError(f"'{text}' are not passes: write some of {', '.join(known)}, such as cond,null.")
    return tuple(known[name] for name in names)


def parse_options(texts: Sequence[str]) -> dict[str, bool | int | float | str]:
    """Settings of one model written as name=value: true and false, whole numbers, numbers, and words.

    Raises:
        UserError: for what is not written so, and where one is named twice.
    """
    options: dict[str, bool | int | float | str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name.isidentifier() and equals and value) or name in options:
            raise UserError(
                f"'{text}' is not a setting, or is there twice: write name=value, such as omega=7."
            )
        options[name] = _value(value)
    return options


def _value(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text  # "nan" and "infinity" are words
    return text
