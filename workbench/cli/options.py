"""Options of a command that are fields of a spec: names, defaults, help, choices and bounds stand in the spec alone.

Every command imports all of these specs, so that their modules import nothing slow, and pydantic is not to build what
checks their values before it is needed (`defer_build`).
"""

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., None])


def offers(spec: type[BaseModel], prefix: str = "", **spelled: str) -> Callable[[Command], Command]:
    """Give a command an option for every field of a spec that has a description, which is its help.

    The command gets the values by the fields' names, with the `prefix` before them, in its `**asked`. An option is
    spelled as the field with hyphens, `--n-prompts`, but in the singular where it can be repeated, `--concept` for
    concepts, and without "name" at its end, `--pass` for pass_name. `spelled` has the options that are spelled
    otherwise, by field.
    """
    offered = [
        _parameter(prefix + name, field, spelled.get(name))
        for name, field in spec.model_fields.items()
        if field.description
    ]

    def decorate(command: Command) -> Command:
        own = [
            each.replace(kind=Parameter.KEYWORD_ONLY)
            for each in inspect.signature(command).parameters.values()
            if each.kind != Parameter.VAR_KEYWORD
        ]
        required = [each for each in own if each.default is Parameter.empty]
        optional = [each for each in own if each.default is not Parameter.empty]
        # What typer makes the command's options from.
        command.__signature__ = inspect.Signature([*required, *offered, *optional])  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(name: str, field: FieldInfo, flag: str | None) -> Parameter:
    kind: Any = field.annotation
    default: Any = Parameter.empty if field.is_required() else field.default
    singular, metavar = name.removesuffix("_name"), None
    if get_origin(kind) is tuple:
        # Of a list typer takes text alone, which the spec, or the command, reads.
        choices = get_args(get_args(kind)[0]) if get_origin(get_args(kind)[0]) is Literal else ()
        singular, metavar = name.removesuffix("s"), f"<{'|'.join(choices)}>" if choices else None
        kind, default = list[str], list(default)
    bounds = {
        bound: getattr(each, bound)
        for each in field.metadata
        for bound in ("ge", "le")
        if hasattr(each, bound)
    }
    option = typer.Option(
        flag or f"--{singular.replace('_', '-')}",
        help=field.description,
        metavar=metavar,
        min=bounds.get("ge"),
        max=bounds.get("le"),
    )
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
