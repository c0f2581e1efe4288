"""Validate values with pydantic, with error sentences of our own."""

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, RootModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticKnownError

from cache.errors import UserError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

Value = TypeVar("Value")
Model = TypeVar("Model")

LONGEST_NAME = 200
"""Characters of the longest name of a concept, a value or an arm."""

_LONGEST = 60
_NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, and line separators
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
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
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
_TOO_LONG = ("too_long", "string_too_long")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_TAGS = ("union_tag_invalid", "union_tag_not_found")
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


def _positive_zero(value: float) -> float:
    # -0.0 equals 0.0, but is written differently in JSON, so equal objects would have different hashes.
    return value + 0.0


Number = Annotated[float, BeforeValidator(_no_text_or_truth), AfterValidator(_positive_zero)]
"""A number that is not written as text: in Python and in JSON, not in options. Minus zero becomes zero."""


def _one_as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_as_list)]
"""Several names, or one as text."""


class MadeByUsers(ModelMetaclass):
    """Metaclass of models that users construct in Python: an invalid value raises UserError, worded as by `validated`.

    An `__init__` or a wrap validator would not do: pydantic runs them for models inside other models, too, where the
    UserError would lose the place of the value (`settings.duration`).
    """

    def __call__(cls, *unnamed: Any, **values: Any) -> Any:
        if unnamed:
            names = ", ".join(_annotations(cls))
            raise UserError(f"The values of {cls.__name__} must be given by name ({names}).")
        what = f"Invalid {cls.__name__}"
        try:
            made = super().__call__(**values)
        except ValidationError as error:
            raise UserError(f"{what}: {_sentence(error.errors()[0], cls)}.") from error
        _check_kept(values, made, what)
        return made


def must_be(kind: type[Any] | tuple[type[Any], ...], given: Any, what: str) -> None:
    """Raise UserError unless an argument is of a kind, and valid text if it is text or a path.

    `what` says what it is and how to get one.
    """
    if not isinstance(given, kind):
        raise UserError(f"{what}, not {shown(given)}.")
    if isinstance(given, str | os.PathLike) and not _is_text(os.fspath(given)):
        raise UserError(f"{what}, not {shown(given)}, which is not valid text.")


def name_problem(name: str) -> str:
    """Return what is wrong with a name that figures, tables and files show, as the rest of a sentence, or ""."""
    if len(name) > LONGEST_NAME:
        return f"must have at most {LONGEST_NAME} characters, not {len(name)}"
    return line_problem(name)


def line_problem(text: str) -> str:
    """Return what is wrong with a text of any length that is shown in one line, as the rest of a sentence, or ""."""
    if any(unicodedata.category(character) in _NOT_IN_NAMES for character in text):
        return "must be one line of text without control characters"
    return ""


def taken_for_numbers(given: Any, made: Any, kinds: tuple[type[Any], ...]) -> Iterator[tuple[str, Any]]:
    """Yield the values of some kinds in `given`, with their places, that became numbers in what was made of it."""
    if given is made:  # it was not converted
        return
    for name, value in _entries(given):
        inner = dict(_entries(made)).get(name, getattr(made, str(name), None))
        if isinstance(value, kinds) and type(inner) in (int, float):
            yield str(name), value
        else:
            yield from ((f"{name}.{below}", one) for below, one in taken_for_numbers(value, inner, kinds))


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
    _check_kept(values, made, what)
    return made


def _check_kept(given: Any, made: Any, what: str) -> None:
    """Raise UserError for values that pydantic accepts but that cannot be meant: True as a number, invalid text."""
    for place, value in taken_for_numbers(given, made, (bool,)):
        raise UserError(f"{what}: {place} must be a number, not {value!r}.")
    for place, text in _texts(given):
        if not _is_text(text):
            raise UserError(f"{what}: {place or 'it'} must be valid text, not {shown(text)}.")


def _texts(given: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts in lists and mappings, nested however deeply, with their places."""
    left = [("", given)]
    while left:
        place, value = left.pop()
        if isinstance(value, str):
            yield place, value
        left += [(f"{place}.{name}".strip("."), inner) for name, inner in _entries(value)]


def _entries(given: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(given, dict):
        return given.items()
    return enumerate(given) if isinstance(given, list | tuple) else ()


def _is_text(text: str | bytes) -> bool:
    """Whether text can be written: it has no NUL, and no lone surrogates, as which Python keeps undecodable bytes."""
    if isinstance(text, bytes):
        return b"\0" not in text
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


def check_names(given: Iterable[str], models: Sequence[type[Any]], what: str, advice: str = "") -> None:
    """Raise UserError for a name that is no field of any of the models; the sentence begins with `what`."""
    known = list(dict.fromkeys(name for model in models for name in _annotations(model)))
    for name in given:
        if name not in known:
            raise UserError(f"{what}: {name} is not a known name{_known(name, known)}.{advice}")


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
    if kind in _TAGS:
        name = str(context["discriminator"]).strip("'")
        tags = ", ".join(map(repr, _tags(model, problem["loc"], name)))
        given = shown(context["tag"]) if "tag" in context else "nothing"
        return f"{f'{where}.{name}'.strip('.')} must be one of {tags}, not {given}"
    if kind in _ABSENCES:
        return f"{where or 'it'} {_ABSENCES[kind].format(**context)}"
    if _is_nan(problem["input"]):
        kind = "finite_number"  # NaN fails any bound
    reason = _REASONS[kind].format(**context) if kind in _REASONS else f"is wrong ({problem['msg']})"
    return f"{where or 'it'} {reason}, not {_given(problem)}"


def _given(problem: ErrorDetails) -> str:
    """Return what was given: the length of what is too long, otherwise the value."""
    if problem["type"] in _TOO_LONG and isinstance(problem["input"], Sized):
        return str(len(problem["input"]))
    return shown(problem["input"])


def _known(name: str, names: Sequence[str]) -> str:
    """Return the known names, if there are many only those nearest to `name`, as the rest of a sentence."""
    if len(names) > _MOST_LISTED:
        near = get_close_matches(name, names)
        return f" (did you mean {' or '.join(near)}?)" if near else ""
    return f" (known: {', '.join(names)})" if names else ""


def _fields(model: Any, path: Sequence[str | int]) -> list[str]:
    """Return the names of the fields of what is at a path in a model; none if the path leads nowhere."""
    return list(dict.fromkeys(name for kind in _kinds_at(model, path) for name in _annotations(kind)))


def _tags(model: Any, path: Sequence[str | int], name: str) -> list[Any]:
    """Return the values of the field `name` that tell the kinds of a union apart, which is at a path in a model."""
    return [tag for kind in _kinds_at(model, path) for tag in get_args(_annotations(kind).get(name))]


def _kinds_at(model: Any, path: Sequence[str | int]) -> list[Any]:
    """Return the kinds that what is at a path in a model can have."""
    found = [model]
    for part in path:
        found = [inner for annotation in found for inner in _inside(annotation, part)]
    return [kind for annotation in found for kind in _alternatives(annotation)]


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


def shown(value: Any) -> str:
    """Return a user's value for a sentence: in one line, shortened, with characters that cannot be printed escaped."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    end = text[-1] if isinstance(value, str) else ""  # the closing quotation mark
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…{end}"
