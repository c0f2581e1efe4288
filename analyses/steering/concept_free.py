"""Null vectors from concept-free pairs: the prompts of a pair differ, but not in the concept."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from analyses.steering.capture import Method, PairOptions, capture_of_pairs, check_methods, fit_to
from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Pair, Prompt, PromptSet, asked_prompt_set
from workbench.validation import must_be

PLACE = "{p}"


def concept_free(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    methods: Sequence[Method],
    *,
    wording: str = "",
    **options: Unpack[PairOptions],
) -> list[Vector]:
    """Fit methods to concept-free pairs, as many as a vector of the concept has; return a vector for each.

    The corrupt prompts are those of the concept's pairs. The clean prompt of a pair differs from its corrupt one in the
    value of one other concept, drawn at random; or, with a `wording`, only in the wording: it is the wording with the
    corrupt prompt in place of `{p}`, as in "a recording of {p}". `options` are those of `capture_of_pairs`.

    Raises:
        UserError: as `fit`; or if the prompts mention no other concept, or the wording has no `{p}` or adds nothing.
    """
    check_methods(methods)
    must_be(str, wording, "A wording must be text with {p} for the prompt, such as 'a recording of {p}'")
    if wording and (PLACE not in wording or not wording.replace(PLACE, "").strip()):
        raise UserError(
            f"A wording must have {PLACE} for the prompt and other words, such as 'a recording of {PLACE}'; got "
            f"'{wording}'."
        )
    captured = capture_of_pairs(model, concept, sites, **options)
    prompts = asked_prompt_set(options.get("prompts", "organism"))
    draw = random.Random(f"concept-free-{concept}-{captured.seed}")
    pairs = tuple(
        replace(
            pair,
            clean=_reworded(pair.corrupt, wording) if wording else _otherwise(pair, prompts, draw),
        )
        for pair in captured.pairs
    )
    name = f"{'wording' if wording else 'another concept'} (like {concept})"
    return fit_to(replace(captured, concept=name, pairs=pairs), methods)


def _reworded(prompt: Prompt, wording: str) -> Prompt:
    return replace(prompt, text=wording.replace(PLACE, prompt.text))


def _otherwise(pair: Pair, prompts: PromptSet, draw: random.Random) -> Prompt:
    """Return the corrupt prompt with another value of another concept; raise UserError if it mentions none."""
    others = [name for name, label in pair.corrupt.labels.items() if label and name != pair.concept]
    if not others:
        raise UserError(
            f"The prompts of {pair.concept} mention no other concept. Give a wording, such as 'a recording of {PLACE}'."
        )
    other = draw.choice(others)
    values = [value for value in prompts.concepts[other] if value != pair.corrupt.labels[other]]
    return prompts.changed(pair.corrupt, {other: draw.choice(values)})
