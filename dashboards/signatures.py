"""Show the fields of specs as keyword arguments of a function, for `help` and for completion in notebooks."""

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Function = TypeVar("Function", bound=Callable[..., Any])


def takes(*specs: type[BaseModel], maker: Callable[..., Any] | None = None) -> Callable[[Function], Function]:
    """List the `**options` that a function takes in its signature and its docstring.

    These are the keyword arguments of `maker`, the function that receives them, and the described fields of the specs.
    """

    def decorate(function: Function) -> Function:
        shown = inspect.signature(function)
        own = [each for each in shown.parameters.values() if each.kind != Parameter.VAR_KEYWORD]
        made = inspect.signature(maker).parameters.values() if maker else ()
        keywords = {each.name: each for each in made if each.kind == Parameter.KEYWORD_ONLY}
        fields = {
            name: field for spec in specs for name, field in spec.model_fields.items() if field.description
        }
        keywords |= {name: _keyword(name, field) for name, field in fields.items() if name not in keywords}
        options = [each for name, each in keywords.items() if name not in shown.parameters]
        function.__signature__ = shown.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        lines = [f"    {name}: {fields[name].description}" for name in keywords if name in fields]
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options:", *lines])
        return function

    return decorate


def _keyword(name: str, field: FieldInfo) -> Parameter:
    default = Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=field.annotation)
