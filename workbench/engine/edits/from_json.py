"""Read edits back from JSON: the data that `Edit.to_json` returns."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from cache.errors import UserError
from workbench.engine.edits.edit import Edit, Run
from workbench.engine.edits.window import EVERYTHING, Window
from workbench.engine.operators import operator_named
from workbench.engine.runs import Clip
from workbench.engine.sites import EditTarget
from workbench.engine.tensors import Tensors
from workbench.validation import validated

MOST_NESTED = 8


def edit_from_json(data: Any, tensors: Tensors | None = None) -> Edit:
    """Rebuild an edit from `Edit.to_json` data; `tensors` returns its tensors by hash.

    Raises:
        UserError: for an unknown operator or field, a value of a wrong type, or a missing tensor.
    """
    return _edit_from_json(data, tensors, 0)


def _edit_from_json(data: Any, tensors: Tensors | None, depth: int) -> Edit:
    what = "Invalid edit"
    given = validated(_EditFields, data, what)
    allowed = operator_named(given.operator)
    parameters = {name: _with_tensor(value, tensors) for name, value in given.parameters.items()}
    return Edit(
        operator=given.operator,
        sites=given.sites,
        target=given.target,
        parameters=validated(allowed.parameters, parameters, what),
        window=given.window,
        sources=tuple(_run_from_json(source, tensors, depth) for source in given.sources),
        made_on=given.made_on,
        made_at=given.made_at,
    )


@dataclass(frozen=True, kw_only=True)
class _EditFields:
    """The fields of an edit in JSON."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    operator: str
    sites: tuple[str, ...]
    target: EditTarget = "output"
    parameters: dict[str, Any]
    window: Window = EVERYTHING
    sources: tuple[Any, ...] = ()
    made_on: tuple[str, str] | None = None
    made_at: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _RunFields:
    """The fields of a run in JSON, if it is more than a clip."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    run: Any
    edits: tuple[Any, ...] = ()
    follows: Any = None


def _run_from_json(data: Any, tensors: Tensors | None, depth: int) -> Run:
    if not isinstance(data, dict) or "run" not in data:
        return Run(_clip_from_json(data))
    if depth == MOST_NESTED:
        raise UserError(f"Invalid source: runs are nested more than {MOST_NESTED} deep.")
    given = validated(_RunFields, data, "Invalid source")
    return Run(
        _clip_from_json(given.run),
        tuple(_edit_from_json(edit, tensors, depth + 1) for edit in given.edits),
        None if given.follows is None else _run_from_json(given.follows, tensors, depth + 1),
    )


def _clip_from_json(data: Any) -> Clip | str:
    return data if isinstance(data, str) else validated(Clip, data, "Invalid source")


def _with_tensor(value: Any, tensors: Tensors | None) -> Any:
    """Return the tensor that a value refers to, an autoencoder with its tensors, or the value itself."""
    if not isinstance(value, dict):
        return value
    if isinstance(weights := value.get("weights"), dict):
        return {**value, "weights": {name: _with_tensor(each, tensors) for name, each in weights.items()}}
    if set(value) != {"tensor"} or not isinstance(value["tensor"], str):
        raise UserError('A tensor of an edit must be written as {"tensor": hash}.')
    if tensors is None:
        raise UserError(f"The tensor {value['tensor'][:80]} is missing. Store it with the edit.")
    return tensors(value["tensor"])
