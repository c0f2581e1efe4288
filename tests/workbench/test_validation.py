"""Sentences on unknown names list the names at that place, or none."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, RootModel

from cache.errors import UserError
from workbench.validation import validated


@dataclass(frozen=True)
class Note:
    """Metadata of an annotation, which is no field of anything."""

    words: str = ""


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")

    leaf: int = 0
    size: Annotated[int, Note("of the leaf")] = 0


class Other(BaseModel):
    model_config = ConfigDict(extra="forbid")

    other: int = 0


class Leaves(RootModel[dict[str, Leaf]]):
    pass


class Tree(BaseModel):
    model_config = ConfigDict(extra="forbid")

    leaf: Leaf | None = None
    noted: Annotated[Leaf, Note()] | None = None
    listed: tuple[Leaf, ...] = ()
    leaves: Leaves = Leaves({})
    either: Leaf | Other = Leaf()


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ({"x": 1}, "(known: leaf, noted, listed, leaves, either)"),
        ({"leaf": {"x": 1}}, "(known: leaf, size)"),
        ({"noted": {"x": 1}}, "(known: leaf, size)"),
        ({"listed": [{}, {"x": 1}]}, "(known: leaf, size)"),
        ({"leaves": {"noted": {"x": 1}}}, "(known: leaf, size)"),
        ({"either": {"x": 1}}, ""),  # the path has the name of the class, which is no field
    ],
    ids=str,
)
def test_the_names_that_are_known_are_those_of_the_place(values: dict[str, Any], known: str) -> None:
    with pytest.raises(UserError) as error:
        validated(Tree, values, "Wrong")
    assert str(error.value).endswith(f"x is not a known name{' ' * bool(known)}{known}.")
