"""Validate values with pydantic, with error sentences of our own."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, RootModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticKnownError

from cache.errors import UserError

Value = TypeVar("Value")
Model = TypeVar("Model")

_LONGEST = 60
_MAPPING = "must be a mapping (name: value)"
_NANS = ("nan", "+nan", "-nan")  # as written in an option
_NUMBER = "must be a number"
_REASONS = {
    "dict_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "string_type": "must be text",
    "string_pattern_mismatch": "must have only letters, digits, and . + - _",  # the only pattern of a spec
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MOST_LISTED = 12
_ABSENCES = {
    "missing": "is missing",
    "too_short": "must have at least {min_length} entry",
    "string_too_short": "must not be empty",
}


def _no_text_or_truth(value: Any) -> Any:
    if isinstance(value, str | bytes | bool):
        raise PydanticKnownError("float_type")
    return value


Number = Annotated[float, BeforeValidator(_no_text_or_truth)]
"""A number that is not written as text: in Python and in JSON, not in options."""


def _one_as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_as_list)]
"""Several names, or one as text."""


class MadeByUsers(type(BaseModel)):  # type: ignore[misc]
    """Metaclass of models that users construct in Python: an invalid value raises UserError, worded as by `validated`.

    An `__init__` or a wrap validator would not do: pydantic runs them for models inside other models, too, where the
    UserError would lose the place of the value (`settings.duration`).
    """

    def __call__(cls, *unnamed: Any, **values: Any) -> Any:
        if unnamed:
            names = ", ".join(_annotations(cls))
            raise UserError(f"The values of {cls.__name__} must be given by name ({names}).")
        try:
            return super().__call__(**values)
        except ValidationError as error:
            raise UserError(f"Invalid {cls.__name__}: {_sentence(error.errors()[0], cls)}.") from error


def must_be(kind: type[Any] | tuple[type[Any], ...], given: Any, what: str) -> None:
    """Raise UserError unless an argument is of a kind; `what` says what it is and how to get one."""
    if not isinstance(given, kind):
        raise UserError(f"{what}, not {_shown(given)}.")


def validated(model: type[Model], values: Any, what: str) -> Model:
    """Convert `values` to a pydantic model or dataclass; `what` begins the sentence on the first mistake.

    Raises:
        UserError: with what was given, where, and what is allowed.
    """
    try:
        # mypy does not know that a class is hashable.
        made: Model = _adapter(model).validate_python(values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UserError(f"{what}: {_sentence(error.errors()[0], model)}.") from error
    return made


def check_names(given: Iterable[str], models: Sequence[type[Any]], what: str) -> None:
    """Raise UserError for a name that is no field of any of the models; `what` begins the sentence."""
    known = list(dict.fromkeys(name for model in models for name in _annotations(model)))
    for name in given:
        if name not in known:
            raise UserError(f"{what}: {name} is not a known name{_known(name, known)}.")


def distinct(value: Value) -> Value:
    """Return a spec's value if it has no repeated entry; the order of nested tuples does not matter.

    For `field_validator("*")`: values that are not tuples are returned unchanged.

    Raises:
        ValueError: naming the first repeated entry.
    """
    seen: set[Any] = set()
    for entry in value if isinstance(value, tuple) else ():
        key = frozenset(entry) if isinstance(entry, tuple) else entry
        if isinstance(entry, tuple):
            distinct(entry)
        if key in seen:
            shown = "+".join(map(str, entry)) if isinstance(entry, tuple) else entry
            raise ValueError(f"'{shown}' is given twice; give each one once")
        seen.add(key)
    return value


@cache
def _adapter(model: type[Any]) -> Any:
    return TypeAdapter(model)


def option_problem(cause: BaseException | None) -> str:
    """Describe what pydantic found wrong with an option's value; "" if there is another cause."""
    if not isinstance(cause, ValidationError):
        return ""
    return _sentence({**cause.errors()[0], "loc": ()}, object).removesuffix(".") + "."


def _sentence(problem: ErrorDetails, model: type[Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "value_error":
        return f"{where}: {context['error']}" if where else str(context["error"])
    if kind in _UNKNOWN:
        *path, name = problem["loc"]
        return f"{where} is not a known name{_known(str(name), _fields(model, path))}"
    if kind in _ABSENCES:
        return f"{where or 'it'} {_ABSENCES[kind].format(**context)}"
    if _is_nan(problem["input"]):
        kind = "finite_number"  # NaN fails any bound
    reason = _REASONS[kind].format(**context) if kind in _REASONS else f"is wrong ({problem['msg']})"
    return f"{where or 'it'} {reason}, not {_shown(problem['input'])}"


def _known(name: str, names: Sequence[str]) -> str:
    """Return the known names, if there are many only those nearest to `name`, as the rest of a sentence."""
    if len(names) > _MOST_LISTED:
        near = get_close_matches(name, names)
        return f" (did you mean {' or '.join(near)}?)" if near else ""
    return f" (known: {', '.join(names)})" if names else ""


def _fields(model: Any, path: Sequence[str | int]) -> list[str]:
    """Return the names of the fields of what is at a path in a model; none if the path leads nowhere."""
    found = [model]
    for part in path:
        found = [inner for annotation in found for inner in _inside(annotation, part)]
    kinds = [kind for annotation in found for kind in _alternatives(annotation)]
    return list(dict.fromkeys(name for kind in kinds for name in _annotations(kind)))


def _inside(annotation: Any, part: str | int) -> list[Any]:
    """Return the annotations of a value's field, or of its entries if it is a mapping or a list."""
    found: list[Any] = []
    for kind in _alternatives(annotation):
        container = get_origin(kind) or kind
        if part in _annotations(kind):
            found.append(_annotations(kind)[part])
        elif isinstance(container, type) and issubclass(container, Mapping):
            found += get_args(kind)[1:]
        elif isinstance(container, type) and issubclass(container, Collection):
            found += get_args(kind)
    return found


def _alternatives(annotation: Any) -> list[Any]:
    """Return the kinds of a union, without metadata; a root model's are those of its root."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for each in get_args(annotation) for kind in _alternatives(each)]
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return _alternatives(annotation.model_fields["root"].annotation)
    return [annotation]


def _annotations(kind: Any) -> dict[Any, Any]:
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if not is_dataclass(kind):
        return {}
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _is_nan(value: Any) -> bool:
    return str(value).strip().lower() in _NANS


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
