"""Make a command's options from the fields of a spec, which declares their names, defaults, help, choices and bounds.

Every command imports all of these specs, so their modules import nothing slow, and pydantic builds their validators
only when they are needed (`defer_build`).
"""

import inspect
from collections.abc import Callable, Collection, Sequence
from inspect import Parameter
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., None])


def offers(
    spec: type[BaseModel], prefix: str = "", only: Collection[str] | None = None, **spelled: str
) -> Callable[[Command], Command]:
    """Add an option to a command for every field of a spec that has a description, which becomes the option's help.

    The command receives the values in its `**asked`, by field name with the `prefix` before it. An option is named
    after its field, with hyphens (`--n-prompts`), in the singular if it can be repeated (`--concept` for `concepts`),
    and without a final "name" (`--pass` for `pass_name`). `spelled` has, by field, the options with other names; `only`
    are the fields to offer, if not all.
    """
    offered = [
        _parameter(prefix + name, field, spelled.get(name))
        for name, field in spec.model_fields.items()
        if field.description and (only is None or name in only)
    ]

    return _adding(offered)


def offers_any(*specs: type[BaseModel], without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add an option for every described field of any of the specs, which the command gets as None if it is not given.

    Fields of the same name are one option. The help says the default, and which specs have the field (by their field
    `architecture`), unless all do. `without` are the fields that are left out.
    """
    fields = {name: field for spec in specs for name, field in spec.model_fields.items() if field.description}
    offered = []
    for name, field in fields.items():
        if name in without:
            continue
        own = _parameter(name, field, None)
        option = own.annotation.__metadata__[0]
        having = [spec.model_fields["architecture"].default for spec in specs if name in spec.model_fields]
        notes = [] if len(having) == len(specs) else [", ".join(having)]
        if field.default not in ((), ""):  # what these mean is in the description
            notes.append(f"default {field.default}")
        option.help += f" ({'; '.join(notes)})" if notes else ""
        kind = get_args(own.annotation)[0]
        offered.append(own.replace(default=None, annotation=Annotated[kind | None, option]))
    return _adding(offered)


def _adding(offered: Sequence[Parameter]) -> Callable[[Command], Command]:
    """Return what adds options to a command."""

    def decorate(command: Command) -> Command:
        own = [
            each.replace(kind=Parameter.KEYWORD_ONLY)
            for each in inspect.signature(command).parameters.values()
            if each.kind != Parameter.VAR_KEYWORD
        ]
        required = [each for each in own if each.default is Parameter.empty]
        optional = [each for each in own if each.default is not Parameter.empty]
        # typer makes the command's options from its signature.
        command.__signature__ = inspect.Signature([*required, *offered, *optional])  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(name: str, field: FieldInfo, flag: str | None) -> Parameter:
    kind: Any = field.annotation
    default: Any = Parameter.empty if field.is_required() else field.default
    singular, metavar, text = name.removesuffix("_name"), None, field.description
    if get_origin(kind) is tuple:
        # typer gets a list's entries as text, which the spec or the command converts.
        choices = get_args(get_args(kind)[0]) if get_origin(get_args(kind)[0]) is Literal else ()
        singular, metavar = name.removesuffix("s"), f"<{'|'.join(choices)}>" if choices else None
        kind, default, text = list[str], list(default), f"{text} Repeatable."
    bounds = {
        bound: getattr(each, bound)
        for each in field.metadata
        for bound in ("ge", "le")
        if hasattr(each, bound)
    }
    option = typer.Option(
        flag or f"--{singular.replace('_', '-')}",
        help=text,
        metavar=metavar,
        min=bounds.get("ge"),
        max=bounds.get("le"),
    )
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
