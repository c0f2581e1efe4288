"""Typer commands with the workbench's error messages, and options that several commands read in the same way."""

import sys
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from cache.errors import UserError

MAY_BE_EMPTY = ("lyrics", "url_prefix")
"""Options for which "" is valid: no lyrics, no prefix. In any other option, "" is likely an unset shell variable."""


class Commands(TyperGroup):
    """A command group that reports invalid option values in the wording of `workbench.validation`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from workbench.validation import option_problem

            error.message = option_problem(error.__cause__) or error.message
            raise


class Command(TyperCommand):
    """A command that rejects empty values and repeated options.

    Otherwise "" would mean the current folder as a path, and the default as a name; and if an option for one value were
    given several times, all values but the last would be ignored.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Convert the arguments; raise BadParameter for empty ones, and for options that are given twice."""
        if not ctx.resilient_parsing:  # true during shell completion
            for text in args:
                if not _is_text(text):
                    raise typer.BadParameter(
                        f"{text!r} is not valid text in {sys.getfilesystemencoding()}.", ctx
                    )
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in order:
                if _is_repeated(parameter, order, given):
                    raise typer.BadParameter("it is given twice; give it once.", ctx, cast(Any, parameter))
            for parameter in self.get_params(ctx):
                name = str(parameter.name)
                if name not in MAY_BE_EMPTY and _is_empty(given.get(name)):
                    advice = "give a value" if parameter.required else "give a value, or leave it out"
                    raise typer.BadParameter(f"it must not be empty: {advice}.", ctx, cast(Any, parameter))
        return super().parse_args(ctx, args)


class CommandLine(typer.Typer):
    """A Typer application whose commands are all of the class `Command`."""

    def command(self, *args: Any, **options: Any) -> Any:
        """Return a decorator that makes a function a command, like Typer's."""
        return super().command(*args, cls=Command, **options)


def parse_job(text: str) -> tuple[int, int]:
    """Return (k, n) of job k of n, written k/n; raise UserError for anything else."""
    number, slash, jobs = text.partition("/")
    if not (number.isdecimal() and slash and jobs.isdecimal()):
        raise UserError(f"'{text}' is not a job. Write job k of n as k/n, such as 2/4.")
    return int(number), int(jobs)


def _is_text(argument: str) -> bool:
    """Whether an argument could be decoded; Python keeps other bytes as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def _is_repeated(parameter: Any, order: list[Any], given: dict[str, Any]) -> bool:
    """Whether a parameter for one value is given twice, or one for several values has the same value twice."""
    if not parameter.multiple and parameter.nargs == 1:
        return order.count(parameter) > 1
    values = given.get(parameter.name) or ()
    return len(set(values)) < len(values)


def _is_empty(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_empty(each) for each in value)
    return isinstance(value, str) and not value.strip()
