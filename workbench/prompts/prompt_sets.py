"""Prompt sets: templates with slots for concepts, which give labelled prompts and counterfactual pairs."""

import itertools
import math
import os
import random
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cache.errors import UserError
from cache.wording import quoted
from workbench.prompts.built_in import load_set
from workbench.scorers.descriptors import DescriptorNames
from workbench.validation import must_be, name_problem, shown, validated

BUILT_IN = Path(__file__).parent / "prompt_sets"
MOST_PROMPTS = 10_000_000
"""Largest number of prompts of a prompt set, and of pairs of a concept, because all of them are shuffled."""

Context = tuple[str, dict[str, str]]
"""A template, and a value for each slot except that of the concept."""

Encode = Callable[[str], str]
"""Returns a key of the tokens that a model reads from a prompt."""

_PIECES = re.compile(r"(\{\{|\}\})|\{([^{}]*)\}|([{}])|[^{}]+")


@dataclass(frozen=True)
class Prompt:
    """A prompt's text with its label for each concept: the value's name, or "" if the text does not mention it."""

    text: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Pair:
    """A clean prompt and its counterfactual (corrupt) one, which differ in one concept; `text` is the scorer's."""

    concept: str
    clean: Prompt
    corrupt: Prompt
    text: str

    @property
    def clean_value(self) -> str:
        """The concept's value in the clean prompt."""
        return self.clean.labels[self.concept]

    @property
    def corrupt_value(self) -> str:
        """The concept's value in the corrupt prompt."""
        return self.corrupt.labels[self.concept]


class Value(BaseModel):
    """A value of a concept: the phrase that goes into a prompt, and the text that a scorer compares audio with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phrase: str
    text: str


class PromptSet(BaseModel):
    """Templates and concepts.

    A template has concepts in braces ("a {tempo} song with {instrument}"); literal braces are doubled. A concept has at
    least two values with different phrases. In a file a value may be abbreviated to `name: phrase`; its scorer text is
    then its name. `descriptors` are continuous concepts: no prompt names them, but all audio has values of them
    (`workbench.scorers.descriptors`), which maps and probes take beside the concepts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    templates: tuple[str, ...] = Field(min_length=1)
    concepts: dict[str, dict[str, Value]] = Field(min_length=1)
    descriptors: DescriptorNames = ()

    @field_validator("concepts", mode="before")
    @classmethod
    def _expand_short_values(cls, concepts: object) -> object:
        if not isinstance(concepts, dict):
            return concepts
        return {concept: _expanded(values) for concept, values in concepts.items()}

    @model_validator(mode="after")
    def _check(self) -> "PromptSet":
        for concept, values in self.concepts.items():
            _check_concept(concept, values)
        for template in self.templates:
            slots = _slots(template)
            if not slots or not slots <= set(self.concepts):
                raise ValueError(
                    f"template {quoted(template)} must have slots in braces, "
                    f"each a concept of the file ({', '.join(self.concepts)})"
                )
        if both := [name for name in self.descriptors if name in self.concepts]:
            raise ValueError(f"{both[0]!r} is a concept and a descriptor: rename the concept")
        if (twice := _first_repeated(self.templates)) is not None:
            raise ValueError(f"the template {quoted(twice)} is duplicated")
        for what, count in {
            "prompts": self.n_prompts,
            "pairs": max(map(self.n_pairs, self.concepts)),
        }.items():
            if count > MOST_PROMPTS:
                raise ValueError(
                    f"there must be at most {MOST_PROMPTS:,} {what}; there are {count:,}: use fewer concepts per "
                    "template, or fewer values"
                )
        return self

    def fill(self, n: int, seed: int, without: Collection[str] = ()) -> list[Prompt]:
        """Draw `n` different prompts with `seed` from all fillings of all templates, except the texts `without`.

        Raises:
            UserError: if there are fewer prompts, or two of them have the same text.
        """
        total = self.n_prompts
        left: Sequence[int] = range(total)
        if without:
            left = [number for number in left if self._filling(number).text not in without]
        if not 0 < n <= len(left):
            raise UserError(
                f"The number of prompts must be from 1 to {total} for this prompt set; got {n + len(without)}."
            )
        drawn = [self._filling(number) for number in random.Random(seed).sample(left, n)]
        if (twice := _first_repeated([*without, *(prompt.text for prompt in drawn)])) is not None:
            raise UserError(
                f"Two fillings of this prompt set give the same prompt, {quoted(twice)}. Make them differ."
            )
        return drawn

    @property
    def n_prompts(self) -> int:
        """Number of different prompts."""
        return sum(map(self._n_fillings, self.templates))

    def n_pairs(self, concept: str) -> int:
        """Return the number of counterfactual pairs of a concept."""
        n = len(self.concepts.get(concept, {}))
        return sum(self._n_fillings(template) * (n - 1) for template in self._templates_with(concept))

    def pairs(self, concept: str, n: int, seed: int) -> list[Pair]:
        """Draw `n` different counterfactual pairs of a concept: one slot is swapped, everything else is equal.

        The (clean, corrupt) values cycle through all ordered pairs of values; the other slots are drawn with `seed`.
        Reverses of other pairs come last: none is among the first half of all pairs.

        Raises:
            UserError: if no template has the concept, or there are fewer pairs.
        """
        templates = self._templates_with(concept)
        if not templates:
            raise UserError(
                f"Unknown concept '{concept}'. Concepts of this prompt set: {', '.join(self.concepts)}."
            )
        total = self.n_pairs(concept)
        if not 0 < n <= total:
            raise UserError(
                f"The number of pairs of {concept} must be from 1 to {total} for this prompt set; got {n}."
            )
        draw = random.Random(f"{concept}-{seed}")
        swaps = list(itertools.permutations(self.concepts[concept], 2))
        draw.shuffle(swaps)
        contexts = [
            (template, choice) for template in templates for choice in self._choices(template, concept)
        ]
        turns = -(-n // len(swaps))
        of_swap: dict[tuple[str, str], list[Context]] = {}
        for one, other in itertools.combinations(self.concepts[concept], 2):
            order = _shuffled(contexts, draw)
            even, odd = order[::2], order[1::2]
            of_swap[one, other], of_swap[other, one] = even + odd, odd + even
        drawn = [self._pair(concept, swap, *of_swap[swap][turn]) for turn in range(turns) for swap in swaps]
        drawn = _reverses_last(drawn)[:n]
        if (
            twice := _first_repeated(f"{pair.clean.text} / {pair.corrupt.text}" for pair in drawn)
        ) is not None:
            raise UserError(
                f"Two pairs of {concept} have the same texts, {quoted(twice)}. Make the templates differ."
            )
        return drawn

    def changed(self, prompt: Prompt, values: dict[str, str]) -> Prompt:
        """Return the prompt with other `values` for some concepts; raise UserError if it is not of this set."""
        choice = {concept: value for concept, value in prompt.labels.items() if value}
        for template in self.templates:
            if _slots(template) == set(choice) and self._prompt(template, choice).text == prompt.text:
                return self._prompt(template, {**choice, **values})
        raise UserError(f"{quoted(prompt.text)} is not a prompt of this prompt set.")

    def _templates_with(self, concept: str) -> list[str]:
        return [template for template in self.templates if concept in _slots(template)]

    def _n_fillings(self, template: str) -> int:
        return math.prod(len(self.concepts[slot]) for slot in _slots(template))

    def _filling(self, number: int) -> Prompt:
        """Return the prompt at an index among all fillings; the last slot varies fastest."""
        for template in self.templates:
            if number < self._n_fillings(template):
                break
            number -= self._n_fillings(template)
        choice = {}
        for slot in sorted(_slots(template), reverse=True):
            number, place = divmod(number, len(self.concepts[slot]))
            choice[slot] = list(self.concepts[slot])[place]
        return self._prompt(template, choice)

    def _pair(self, concept: str, swap: tuple[str, str], template: str, others: dict[str, str]) -> Pair:
        clean, corrupt = (self._prompt(template, {**others, concept: value}) for value in swap)
        return Pair(concept, clean, corrupt, self.concepts[concept][swap[0]].text)

    def _choices(self, template: str, without: str = "") -> list[dict[str, str]]:
        slots = sorted(_slots(template) - {without})
        return [
            dict(zip(slots, names, strict=True))
            for names in itertools.product(*(self.concepts[s] for s in slots))
        ]

    def _prompt(self, template: str, choice: dict[str, str]) -> Prompt:
        text = "".join(
            text if slot is None else self.concepts[slot][choice[slot]].phrase
            for text, slot in _pieces(template)
        )
        return Prompt(text, {concept: choice.get(concept, "") for concept in self.concepts})


def load_prompt_set(name: str) -> PromptSet:
    """Load a built-in prompt set by name, or one from a YAML or JSON file; raise UserError if it is invalid."""
    return load_set(PromptSet, name, BUILT_IN, "prompt set")


def asked_prompt_set(prompts: str | os.PathLike[str] | Mapping[str, Any] | PromptSet) -> PromptSet:
    """Return a prompt set given as itself, by its name or file, or by its fields; raise UserError for anything else."""
    must_be(
        (str, os.PathLike, Mapping, PromptSet),
        prompts,
        "Prompts must be a prompt set, which has templates and concepts (docs/how-to/own-prompts-and-concept.md), or "
        "the name or file of one, such as 'organism'",
    )
    if isinstance(prompts, PromptSet):
        return prompts
    if isinstance(prompts, Mapping):
        return validated(PromptSet, dict(prompts), "Invalid prompt set")
    return load_prompt_set(os.fspath(prompts))


def _expanded(values: object) -> object:
    """Expand abbreviated values of a concept."""
    if not isinstance(values, dict):
        return values
    return {
        str(name): {"phrase": value, "text": str(name)} if isinstance(value, str) else value
        for name, value in values.items()
    }


def _check_concept(concept: str, values: dict[str, Value]) -> None:
    if not concept.strip() or set(concept) & set("{}"):
        raise ValueError(f"a concept's name must not be empty or contain braces; got '{concept}'")
    for what, name in (("concept", concept), *(("value", name) for name in values)):
        if problem := name_problem(name):
            raise ValueError(f"the name of a {what} {problem}; got {shown(name)}")
    if len(values) < 2:
        raise ValueError(f"concept '{concept}' must have at least two values")
    if not all(name.strip() for name in values):
        raise ValueError(f"concept '{concept}' has a value without a name")
    if (twice := _first_repeated(value.phrase for value in values.values())) is not None:
        names = [name for name, value in values.items() if _same(value.phrase) == _same(twice)]
        raise ValueError(
            f"the values {' and '.join(names)} of concept '{concept}' must have different phrases; both have "
            f"{quoted(twice)}"
        )


def _same(text: str) -> str:
    """Normalise a text, so that texts that look the same are equal."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _first_repeated(texts: Iterable[str]) -> str | None:
    """Return the first text that looks like an earlier one, or None."""
    seen = set()
    for text in texts:
        if _same(text) in seen:
            return text
        seen.add(_same(text))
    return None


def _reverses_last(pairs: Sequence["Pair"]) -> list["Pair"]:
    """Return the pairs in this order, but for those whose reverse came before: they are last."""
    first: list[Pair] = []
    reverses: list[Pair] = []
    seen: set[frozenset[str]] = set()
    for pair in pairs:
        sides = frozenset((pair.clean.text, pair.corrupt.text))
        (reverses if sides in seen else first).append(pair)
        seen.add(sides)
    return first + reverses


def _shuffled(items: Sequence[Context], draw: random.Random) -> list[Context]:
    order = list(items)
    draw.shuffle(order)
    return order


def _pieces(template: str) -> list[tuple[str, str | None]]:
    """Split a template into its text and the concepts of its slots; raise ValueError for a single brace."""
    pieces: list[tuple[str, str | None]] = []
    for match in _PIECES.finditer(template):
        doubled, slot, stray = match.groups()
        if stray:
            raise ValueError(
                f"template {quoted(template)} has a single '{stray}': write {stray * 2} for a literal brace"
            )
        pieces.append((doubled[0] if doubled else match[0], slot))
    return pieces


def _slots(template: str) -> set[str]:
    return {slot for _, slot in _pieces(template) if slot is not None}
