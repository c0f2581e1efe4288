"""Pairs in one direction: from a concept's negative values to its positive one."""

import itertools
from collections.abc import Collection, Sequence

from cache.errors import UserError
from workbench.prompts.prompt_sets import Pair, PromptSet
from workbench.scorers.descriptors import DESCRIPTORS
from workbench.validation import must_be


def ends(prompts: PromptSet, concept: str, positive: str = "", negative: str = "") -> tuple[str, list[str]]:
    """Return the value that a direction points towards, and those that it points away from.

    They are by default the concept's first value, and all others.

    Raises:
        UserError: if the concept or a value is unknown, or the values are the same.
    """
    must_be(str, concept, "A concept must be given by its name")
    for value in (positive, negative):
        must_be(str, value, "A value of a concept must be given by its name")
    if concept not in prompts.concepts:
        hint = (
            f" A vector of {concept} is computed by `workbench steer fit-descriptor`."
            if concept in DESCRIPTORS
            else ""
        )
        raise UserError(
            f"Unknown concept '{concept}'. Concepts of this prompt set: {', '.join(prompts.concepts)}.{hint}"
        )
    values = list(prompts.concepts[concept])
    for value in filter(None, (positive, negative)):
        if value not in values:
            raise UserError(f"Unknown value '{value}' of {concept}. Values: {', '.join(values)}.")
    positive = positive or next(value for value in values if value != negative)
    negatives = [negative] if negative else [value for value in values if value != positive]
    if negatives == [positive]:
        raise UserError(f"The two values of {concept} must differ; both are '{positive}'.")
    return positive, negatives


def pairs_towards(
    prompts: PromptSet,
    concept: str,
    positive: str,
    negatives: Sequence[str],
    n: int,
    seed: int,
    without: Collection[str] = (),
    held_out: Collection[str] = (),
) -> list[Pair]:
    """Draw `n` pairs whose clean prompt has the positive value and whose corrupt prompt has a negative one.

    None of their corrupt prompts is in `without`, and neither of their prompts in `held_out`.

    Raises:
        UserError: if there are fewer pairs.
    """
    swaps = len(list(itertools.permutations(prompts.concepts[concept], 2)))
    every = prompts.n_pairs(concept)
    drawn = prompts.pairs(
        concept, min(n * swaps, every) if n > 0 and not (without or held_out) else every, seed
    )
    fitting = [
        pair
        for pair in drawn
        if pair.clean_value == positive
        and pair.corrupt_value in negatives
        and pair.corrupt.text not in without
        and not {pair.clean.text, pair.corrupt.text} & set(held_out)
    ]
    if not 0 < n <= len(fitting):
        others = " and with other prompts than the direction's own" if without or held_out else ""
        raise UserError(
            f"The number of pairs of {concept} must be from 1 to {len(fitting)} (from {' or '.join(negatives)} to "
            f"{positive}{others}) for this prompt set; got {n}."
        )
    return fitting[:n]
