"""Musical attributes mentioned in captions, and the words that turn a caption into its counterfactual."""

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, model_validator

from cache.errors import UserError
from workbench.prompts.built_in import load_set
from workbench.prompts.defaults import ATTRIBUTE_SET
from workbench.prompts.wording import lowered, swap_words, word_pattern

BUILT_IN = Path(__file__).parent / "attribute_sets"


def _clean_words(words: dict[str, str]) -> dict[str, str]:
    cleaned = {" ".join(lowered(key).split()): " ".join(value.split()) for key, value in words.items()}
    if "" in cleaned or "" in cleaned.values():
        raise ValueError("a word and its counterpart must not be empty")
    return cleaned


Words = Annotated[dict[str, str], AfterValidator(_clean_words)]


class Attribute(BaseModel):
    """An attribute, its counterfactual, and the words to swap.

    `swaps` has the words (or phrases) that indicate the attribute, each with its counterpart. `also` has words that are
    swapped too but do not indicate the attribute on their own. `alone` has different counterparts for words that are
    not followed by a noun. `text` is what a scorer compares audio with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    counterfactual: str = Field(min_length=1)
    text: str = Field(min_length=1)
    swaps: Words = Field(min_length=1)
    also: Words = {}
    alone: Words = {}

    @model_validator(mode="after")
    def _check(self) -> "Attribute":
        words = {**self.also, **self.swaps}
        unknown = sorted(set(self.alone) - set(words))
        if unknown:
            raise ValueError(f"'{unknown[0]}' is in `alone`, but neither in `swaps` nor in `also`")
        pattern = word_pattern(words)
        for target in (*words.values(), *self.alone.values()):
            if found := pattern.search(lowered(target)):
                raise ValueError(f"the counterpart '{target}' contains the attribute's own word '{found[0]}'")
        return self

    def swapped(self, caption: str) -> str:
        """Replace all words of the attribute in a caption by their counterparts."""
        return swap_words(caption, {**self.also, **self.swaps}, self.alone)


class AttributeSet(RootModel[dict[str, Attribute]]):
    """Attributes by name. A counterfactual that is not one of them has the counterparts as its words."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _check(self) -> "AttributeSet":
        if not self.root:
            raise ValueError("there must be at least one attribute")
        for name, attribute in self.root.items():
            other = self.root.get(attribute.counterfactual)
            both = sorted(set(attribute.swaps) & set(other.swaps)) if other else []
            if both:
                raise ValueError(
                    f"'{both[0]}' is a word of {name} and of its counterfactual {attribute.counterfactual}"
                )
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The attributes' names."""
        return tuple(self.root)

    def get(self, name: str) -> Attribute:
        """Return the attribute `name`; raise UserError if it is unknown."""
        if name not in self.root:
            raise UserError(f"Unknown attribute '{name}'. Attributes: {', '.join(self.names)}.")
        return self.root[name]

    def opposing_words(self, name: str) -> set[str]:
        """Return the words that indicate the counterfactual of the attribute `name`, in lower case."""
        attribute = self.get(name)
        other = self.root.get(attribute.counterfactual)
        return {lowered(target) for target in attribute.swaps.values()} | set(other.swaps if other else ())


def load_attributes(name: str = ATTRIBUTE_SET) -> AttributeSet:
    """Load a built-in attribute set by name, or one from a YAML or JSON file; raise UserError if it is invalid."""
    return load_set(AttributeSet, name, BUILT_IN, "attribute set")
