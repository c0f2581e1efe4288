"""Parse what to capture and how to run, as users write it: "8 stratified", "every 4", "cond,null", "omega=7"."""

import math
import re
from collections.abc import Sequence
from typing import get_args

import numpy as np
from scipy.optimize import linear_sum_assignment

from cache.errors import UserError
from cache.plan import TokenReduction
from cache.protocol import Pass


def parse_steps(text: str, sigmas: Sequence[float]) -> tuple[int, ...]:
    """Parse steps: "all", indices such as "0,3,7", or "8 stratified" (see `stratified_steps`); return sorted indices.

    Raises:
        UserError: for anything else, a step given twice, or too many steps.
    """
    if text == "all":
        return tuple(range(len(sigmas)))
    stratified = re.fullmatch(r"(\d+) +stratified", text.strip())
    if stratified:
        return stratified_steps(sigmas, int(stratified[1]))
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise UserError(f"Steps must be indices such as 0,3,7, '8 stratified', or 'all'; got '{text}'.")
    steps = sorted(int(part) for part in text.split(","))
    if len(set(steps)) < len(steps):
        raise UserError(f"Steps must each be given once; got '{text}'.")
    return tuple(steps)


def stratified_steps(sigmas: Sequence[float], n: int) -> tuple[int, ...]:
    """Choose `n` steps that cover the noise levels evenly, sorted.

    The range of sigma is divided into `n` equal strata; each is assigned the step nearest to its middle, without
    repetition (the assignment with the smallest sum of distances).

    Raises:
        UserError: if `n` is not between 1 and the number of steps.
    """
    if not 1 <= n <= len(sigmas):
        raise UserError(f"The number of steps must be from 1 to {len(sigmas)}; got {n}.")
    levels = np.asarray(sigmas, dtype=np.float64)
    edges = np.linspace(levels.max(), levels.min(), n + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    _, steps = linear_sum_assignment(np.abs(middles[:, None] - levels[None, :]))
    return tuple(sorted(int(step) for step in steps))


def parse_tokens(text: str, tokens: int) -> TokenReduction:
    """Parse which of a clip's `tokens` to keep: "all", "every 4", "mean 4" (of each 4), or "mean" (of all).

    Raises:
        UserError: for anything else.
    """
    words = text.split()
    if words == ["all"]:
        return TokenReduction()
    if words == ["mean"]:
        return TokenReduction(kind="mean", size=tokens)
    if len(words) == 2 and words[0] in ("every", "mean") and words[1].isdecimal():
        if not 1 <= int(words[1]) <= tokens:
            raise UserError(f"The number in '{text}' must be from 1 to {tokens}, the tokens of a clip.")
        return TokenReduction(kind="stride" if words[0] == "every" else "mean", size=int(words[1]))
    raise UserError(f"Tokens must be 'all', 'every 4', 'mean 4' or 'mean'; got '{text}'.")


def parse_passes(text: str) -> tuple[Pass, ...]:
    """Parse guidance passes, such as "cond,null".

    Raises:
        UserError: for unknown or duplicate passes.
    """
    names = [name.strip() for name in text.split(",")]
    known = {str(name): name for name in get_args(Pass)}
    if not set(names) <= set(known) or len(set(names)) != len(names):
        raise UserError(f"Passes must be some of {', '.join(known)}, such as cond,null; got '{text}'.")
    return tuple(known[name] for name in names)


def parse_options(texts: Sequence[str]) -> dict[str, bool | int | float | str]:
    """Parse model options written as name=value: booleans, numbers and words.

    Raises:
        UserError: for anything else, or a duplicate name.
    """
    options: dict[str, bool | int | float | str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name.isidentifier() and equals and value) or name in options:
            raise UserError(f"Model options must be name=value, such as omega=7, each once; got '{text}'.")
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
