"""What the headers of steering's files have in common: strict entries, lines of text, models, sigmas, and a hash."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cache.wording import quoted
from workbench.provenance import content_hash
from workbench.tensor_files import digests
from workbench.validation import Number, line_problem


class Strict(BaseModel):
    """A part of a header: entries with other names, and numbers that are not finite, are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _one_line(text: str) -> str:
    if problem := line_problem(text):
        raise ValueError(problem)
    return text


def _identified(model: dict[str, Any]) -> dict[str, Any]:
    for name in ("model", "weights_hash"):
        if not isinstance(model.get(name), str):
            raise ValueError(f"it must have a {name}")
    names = model.get("block_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its block_names must be a list of texts")
    return model


def _falling(sigmas: tuple[float, ...]) -> tuple[float, ...]:
    if min(sigmas) <= 0 or not rises([-sigma for sigma in sigmas]):
        raise ValueError("must be positive numbers that fall from step to step")
    return sigmas


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
"""A text that is shown in one line."""
ModelEntry = Annotated[dict[str, Any], AfterValidator(_identified)]
"""The description of the model that a vector or slider belongs to."""
Sigmas = Annotated[tuple[Number, ...], Field(min_length=1), AfterValidator(_falling)]
"""The sigma of each step."""


def rises(numbers: Sequence[Any]) -> bool:
    """Whether each number is larger than the one before it."""
    return all(one < following for one, following in pairwise(numbers))


def check_ends(positive: str, negative: str) -> None:
    """Raise ValueError if the two ends of a concept are the same."""
    if positive == negative:
        raise ValueError(f"positive and negative must differ; both are {quoted(positive)}")


def content_of(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of a header without its own `content`, and of all numbers, which shows damage."""
    return content_hash([{**header, "content": ""}, digests(arrays)])
