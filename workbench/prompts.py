"""Prompt sets: templates whose slots are concepts, filled to give labelled prompts and counterfactual pairs."""

import itertools
import random
import string
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cache.errors import UserError

BUILT_IN = Path(__file__).parent / "prompt_sets"


@dataclass(frozen=True)
class Prompt:
    """A prompt's text with its label for each concept: the value's name, or "" where the text does not say."""

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

    A template names concepts in braces ("a {tempo} song with {instrument}"); a concept has at least two values. In a
    file a value may be written short, as `name: phrase`; its scorer text is then its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    templates: tuple[str, ...] = Field(min_length=1)
    concepts: dict[str, dict[str, Value]] = Field(min_length=1)

    @field_validator("concepts", mode="before")
    @classmethod
    def _expand_short_values(cls, concepts: object) -> object:
        if not isinstance(concepts, dict):
            return concepts
        return {
            concept: {
                str(name): {"phrase": value, "text": str(name)} if isinstance(value, str) else value
                for name, value in values.items()
            }
            for concept, values in concepts.items()
            if isinstance(values, dict)
        }

    @model_validator(mode="after")
    def _check(self) -> "PromptSet":
        for concept, values in self.concepts.items():
            if len(values) < 2:
                raise ValueError(f"concept '{concept}' needs at least two values")
        for template in self.templates:
            slots = _slots(template)
            unknown = slots - set(self.concepts)
            if unknown or not slots:
                raise ValueError(
                    f"template '{template}' must have slots in braces, "
                    f"each a concept of the file ({', '.join(self.concepts)})"
                )
        return self

    def fill(self, n: int, seed: int, without: Collection[str] = ()) -> list[Prompt]:
        """`n` different prompts, drawn with `seed` from all fillings of all templates, `without` those of some texts.

        Raises UserError if there are too few.
        """
        prompts = [self._prompt(template, choice) for template, choice in self._fillings()]
        left = [prompt for prompt in prompts if prompt.text not in without]
        if not 0 < n <= len(left):
            raise UserError(
                f"{n + len(without)} prompts were asked for, "
                f"but this prompt set has 1 to {len(prompts)} different ones."
            )
        return random.Random(seed).sample(left, n)

    @property
    def n_prompts(self) -> int:
        """How many different prompts there are."""
        return len(self._fillings())

    def _fillings(self) -> list[tuple[str, dict[str, str]]]:
        return [(template, choice) for template in self.templates for choice in self._choices(template)]

    def pairs(self, concept: str, n: int, seed: int) -> list[Pair]:
        """`n` different counterfactual pairs of a concept: one slot swapped, everything else equal.

        The (clean, corrupt) values go round all ordered value pairs, both directions alike; the other slots are drawn
        with `seed`. Raises UserError for a concept that no template names, and where there are fewer pairs.
        """
        templates = [template for template in self.templates if concept in _slots(template)]
        if not templates:
            raise UserError(f"Unknown concept '{concept}': this prompt set has {', '.join(self.concepts)}.")
        draw = random.Random(f"{concept}-{seed}")
        swaps = list(itertools.permutations(self.concepts[concept], 2))
        draw.shuffle(swaps)
        contexts = [self._shuffled_contexts(concept, templates, draw) for _ in swaps]
        available = [
            self._pair(concept, swap, *context)
            for turn in zip(*contexts, strict=True)
            for swap, context in zip(swaps, turn, strict=True)
        ]
        if not 0 < n <= len(available):
            raise UserError(
                f"{n} pairs of {concept} were asked for, but this prompt set has 1 to {len(available)}."
            )
        return available[:n]

    def changed(self, prompt: Prompt, values: dict[str, str]) -> Prompt:
        """The prompt with other `values` of some of its concepts; raises UserError for one that is not of this set."""
        choice = {concept: value for concept, value in prompt.labels.items() if value}
        for template in self.templates:
            if _slots(template) == set(choice) and self._prompt(template, choice).text == prompt.text:
                return self._prompt(template, {**choice, **values})
        raise UserError(f"'{prompt.text}' is not a prompt of this prompt set.")

    def _shuffled_contexts(
        self, concept: str, templates: list[str], draw: random.Random
    ) -> list[tuple[str, dict[str, str]]]:
        """Every template with every choice for its other slots, in random order."""
        contexts = [
            (template, choice) for template in templates for choice in self._choices(template, concept)
        ]
        draw.shuffle(contexts)
        return contexts

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
        text = template.format(**{slot: self.concepts[slot][name].phrase for slot, name in choice.items()})
        return Prompt(text, {concept: choice.get(concept, "") for concept in self.concepts})


def load_prompt_set(name: str) -> PromptSet:
    """Load a built-in prompt set by name, or one from a YAML file; raises UserError saying what is wrong with it."""
    path = BUILT_IN / f"{name}.yaml" if (BUILT_IN / f"{name}.yaml").is_file() else Path(name)
    if not path.is_file():
        built_in = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
        raise UserError(f"There is no prompt set '{name}': give a YAML file, or a built-in one ({built_in}).")
    try:
        return PromptSet.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise UserError(f"The prompt set {path} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise UserError(f"The prompt set {path} is wrong at {where}: {problem['msg']}.") from error


def _slots(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
