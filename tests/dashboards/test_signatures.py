"""What `help` and completion show of functions that take the fields of a spec."""

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

import workbench as wb
from dashboards.notebook import OpenStudy
from dashboards.signatures import takes


class Asked(BaseModel):
    """A spec."""

    pairs: int = Field(12, description="Counterfactual pairs.")
    blocks: tuple[int, ...] = Field((), description="Blocks to patch.")
    internal: str = ""


def made(*, blocks: tuple[str, ...] = ("tf0",), arms: str | None = None, **options: object) -> None:
    """Receives the options."""


@takes(Asked, maker=made)
def shown(question: str = "blocks", **options: object) -> int:
    """Make a map."""
    return len(options)


def test_the_signature_has_own_parameters_then_the_makers_then_the_fields() -> None:
    assert str(inspect.signature(shown)) == (
        "(question: str = 'blocks', *, blocks: tuple[str, ...] = ('tf0',), arms: str | None = None, "
        "pairs: int = 12) -> int"
    )


def test_the_docstring_has_the_descriptions_of_the_fields() -> None:
    assert shown.__doc__ == (
        "Make a map.\n\nOptions:\n    blocks: Blocks to patch.\n    pairs: Counterfactual pairs."
    )


def test_the_function_still_takes_its_options() -> None:
    assert shown("steps", pairs=3, blocks=()) == 2


def test_notebooks_see_the_options_of_every_verb_of_a_study() -> None:
    expected: dict[Callable[..., Any], set[str]] = {
        wb.trace: {"out", "n_prompts", "seeds", "sites", "settings", "store"},
        OpenStudy.patch: {"question", "pairs", "pairs_file", "arms", "directions", "screening", "nulls"},
        OpenStudy.probe: {"sites", "concepts", "folds"},
        OpenStudy.train_sae: {"site", "k", "expansion", "train_steps", "pass_name"},
    }
    for function, names in expected.items():
        parameters = inspect.signature(function).parameters
        assert names <= set(parameters)
        assert "options" not in parameters
    assert inspect.signature(wb.trace).parameters["n_prompts"].default == 56
    assert "    k: Active features per token." in (OpenStudy.train_sae.__doc__ or "")
