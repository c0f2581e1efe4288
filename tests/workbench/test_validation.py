"""Sentences on unknown names list the names at that place, or none."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel

from cache.errors import UserError
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.validation import must_be, name_problem, validated


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


class Named(BaseModel):
    name: str = Field("", max_length=60)
    tags: tuple[str, ...] = Field((), max_length=1)
    sizes: dict[str, float] = {}
    flag: bool = False
    leaf: Leaf = Leaf()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "n" * 61}, "name must have at most 60 characters, not 61."),
        ({"tags": ["a", "b"]}, "tags must have at most 1 entries, not 2."),
        ({"leaf": {"leaf": True}}, "leaf.leaf must be a number, not True."),
        ({"sizes": {"a": 1, "b": False}}, "sizes.b must be a number, not False."),
        ({"tags": ["\ud800"]}, r"tags.0 must be valid text, not '\ud800'."),
        ({"name": "a\0b"}, r"name must be valid text, not 'a\x00b'."),
    ],
    ids=str,
)
def test_values_that_cannot_be_meant(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        validated(Named, values, "Wrong")
    assert str(error.value) == f"Wrong: {sentence}"


def test_truth_values_and_unusual_text_are_kept_where_they_belong() -> None:
    assert validated(Named, {"name": "é🎹\n", "flag": True}, "Wrong").flag


@pytest.mark.parametrize("name", ["duration", "num_steps", "guidance_scale"])
def test_settings_are_numbers(name: str) -> None:
    with pytest.raises(UserError, match=f"Invalid GenerationSettings: {name} must be a number, not True"):
        GenerationSettings(**{name: True})
    assert GenerationSettings(options={"on": True}).options == {"on": True}


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_text_that_cannot_be_written_is_refused(text: str, tmp_path: Path) -> None:
    for given in ((text, 0), ("song", 0, text)):
        with pytest.raises(UserError, match=r"must be text, not '.*', which is not valid text"):
            Clip(*given)
    for path in (text, tmp_path / text):
        with pytest.raises(UserError, match="which is not valid text"):
            must_be((str, os.PathLike), path, "A folder must be given by its path")


def test_names_are_one_line() -> None:
    assert not name_problem("é🎹 👩‍🎤 " * 10)
    for name in ("a\nb", "a\x1b[31m", "a\u2029", "\ud800"):
        assert name_problem(name) == "must be one line of text without control characters"
    assert name_problem("n" * 5000) == "must have at most 200 characters, not 5000"
