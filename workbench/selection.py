"""Which steps and tokens of a run are kept, written as a user writes them: "8 stratified", "every 4", "mean"."""

import re
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from cache.errors import UserError
from cache.plan import TokenReduction


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
    if not all(part.strip().isdigit() for part in text.split(",")):
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
    if len(words) == 2 and words[0] in ("every", "mean") and words[1].isdigit() and int(words[1]) >= 1:
        return TokenReduction(kind="stride" if words[0] == "every" else "mean", size=int(words[1]))
    raise UserError(f"'{text}' are not tokens: write 'all', 'every 4', 'mean 4', or 'mean'.")
