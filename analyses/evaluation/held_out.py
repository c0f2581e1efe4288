"""Draw the pairs of an evaluation: for its report, and for the choice of strengths. The others are computed from."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.errors import UserError
from workbench.prompts.prompt_sets import Pair, PromptSet

MOST_DRAWN = 20_000
"""Pairs among which an evaluation's are chosen."""


@dataclass(frozen=True)
class Ends:
    """Pairs that are steered at either end: towards the positive value, and away from it.

    The first have different prompts with a negative value, the second different ones with the positive value.
    """

    towards: tuple[Pair, ...]
    away: tuple[Pair, ...]

    @property
    def prompts(self) -> frozenset[str]:
        """All prompts."""
        return frozenset(
            side.text for pair in (*self.towards, *self.away) for side in (pair.clean, pair.corrupt)
        )


@dataclass(frozen=True)
class HeldOut:
    """The pairs of an evaluation: those that are reported, and those on which strengths are chosen.

    They have no prompt in common, nor, with the values of the concept left out, any prompt of `prompts` with others.
    """

    report: Ends
    selection: Ends
    prompts: frozenset[str]


def held_out(
    prompts: PromptSet,
    concept: str,
    positive: str,
    negatives: Sequence[str],
    pairs: int,
    selection: int,
    fit: int,
    seed: int,
) -> HeldOut:
    """Draw the pairs of an evaluation from a prompt set.

    Prompts that differ only in the concept stay together. Enough of them for `fit` pairs are left, if there are; if
    there are too few for all, the report and the selection get fewer, in proportion.

    Args:
        prompts: the prompt set.
        concept: the concept.
        positive: the value that is steered towards.
        negatives: the values that are steered away from.
        pairs: number of pairs of the report.
        selection: number of pairs for the choice of strengths; 0 for none.
        fit: number of pairs that directions are computed from.
        seed: draws the pairs.

    Raises:
        UserError: if there are too few different prompts with the positive value.
    """
    every = prompts.pairs(concept, min(prompts.n_pairs(concept), MOST_DRAWN), seed)
    groups: dict[str, list[Pair]] = {}
    for pair in every:
        if pair.clean_value == positive and pair.corrupt_value in negatives:
            groups.setdefault(pair.clean.text, []).append(pair)
    wanted = 2 + bool(selection)
    if len(groups) < wanted:
        raise UserError(
            f"An evaluation of {concept} needs at least {wanted} prompts with {positive} that differ in something "
            f"else; this prompt set has {len(groups)}. Add templates or values of other concepts to it."
        )
    order = sorted(groups)
    random.Random(f"evaluation-{concept}-{seed}").shuffle(order)
    n_report, n_selection = _shares(len(order), pairs, selection, math.ceil(fit / len(negatives)))
    reported, chosen = order[:n_report], order[n_report : n_report + n_selection]
    taken = [pair for name in (*reported, *chosen) for pair in groups[name]]
    return HeldOut(
        _ends(groups, reported, pairs),
        _ends(groups, chosen, selection),
        frozenset(side.text for pair in taken for side in (pair.clean, pair.corrupt)),
    )


def _shares(total: int, report: int, selection: int, fit: int) -> tuple[int, int]:
    """Return how many of all groups of prompts the report and the selection get, each as many as asked at most."""
    left = max(total - fit, 1 + bool(selection))
    if report + selection <= left:
        return report, selection
    of_selection = min(max(round(left * selection / (report + selection)), bool(selection)), left - 1)
    return left - of_selection, of_selection


def _ends(groups: Mapping[str, Sequence[Pair]], names: Sequence[str], most: int) -> Ends:
    """Return pairs of some groups: towards at most so many, with other negative values each turn; away one of each."""
    turns = max((len(groups[name]) for name in names), default=0)
    towards = [groups[name][turn] for turn in range(turns) for name in names if turn < len(groups[name])]
    return Ends(tuple(towards[:most]), tuple(groups[name][0] for name in names))
