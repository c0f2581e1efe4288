"""Clips from prompts, seeds and lyrics."""

from typing import Any

import pytest

from cache.errors import UserError
from workbench.engine.runs import Clip
from workbench.prompts.clips import clips


def test_one_seed_for_all() -> None:
    assert clips(["a", "b"], seed=3) == [Clip("a", 3), Clip("b", 3)]
    assert clips("a song") == [Clip("a song", 0)]


def test_lists_go_together_and_single_values_are_everybodys() -> None:
    assert clips(["a", "b"], seed=[1, 2], lyrics=["la", ""]) == [Clip("a", 1, "la"), Clip("b", 2)]
    assert clips("a", seed=[1, 2**64 - 1]) == [Clip("a", 1), Clip("a", 2**64 - 1)]
    assert clips(("a", "b"), lyrics="la") == [Clip("a", 0, "la"), Clip("b", 0, "la")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": ["a", "b"], "seed": [1, 2, 3]}, "2 prompts, 3 seeds"),
        ({"prompts": []}, "The list of prompts is empty"),
        ({"prompts": "a", "seed": []}, "The list of seeds is empty"),
        ({"prompts": ["a", " "]}, "prompt"),
        ({"prompts": "a", "seed": -1}, "seed"),
        ({"prompts": "a", "seed": 2**64}, "seed"),
        ({"prompts": "a", "seed": True}, "seed"),
    ],
)
def test_what_is_no_clip(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        clips(**arguments)


@pytest.mark.parametrize("arguments", [("", 0), ("  ", 0), ("a", -3), ("a", 2**64), ("a", True)])
def test_a_clip_itself_refuses_the_same(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UserError, match=r"prompt|seed"):
        Clip(*arguments)
