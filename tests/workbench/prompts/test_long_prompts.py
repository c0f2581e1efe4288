"""Errors quote a user's long texts shortened."""

from collections.abc import Callable

import pytest

from cache.errors import UserError
from cache.wording import LONGEST_QUOTE, quoted
from workbench.engine.batch import plan_batch
from workbench.engine.edits import Run
from workbench.prompts.prompt_sets import Prompt, PromptSet, asked_prompt_set, load_prompt_set
from workbench.prompts.reading import check_prompts

LONG = "a slow song " * 300


def test_a_quote_is_short() -> None:
    assert quoted("a song") == "'a song'"
    assert quoted("x" * LONGEST_QUOTE) == f"'{'x' * LONGEST_QUOTE}'"
    assert quoted("x" * (LONGEST_QUOTE + 1)) == f"'{'x' * LONGEST_QUOTE}…'"


@pytest.mark.parametrize(
    "refused",
    [
        lambda: check_prompts("tiny", [LONG + "a", LONG + "b"], lambda text: text[:50]),
        lambda: load_prompt_set("organism").changed(Prompt(LONG, {}), {}),
        lambda: asked_prompt_set(LONG),
        lambda: PromptSet(templates=(LONG,), concepts={"a": {"x": "x", "y": "y"}}),
        lambda: plan_batch([Run(LONG)]),
    ],
)
def test_errors_quote_long_texts_shortened(refused: Callable[[], object]) -> None:
    with pytest.raises((UserError, ValueError), match=r"'a slow song .*…'") as error:
        refused()
    assert len(str(error.value).split("[type=")[0]) < 400
