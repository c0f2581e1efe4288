"""Run the command line in this process, with the results that a shell would see."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from workbench.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Workbench = Callable[..., Outcome]


@pytest.fixture
def workbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """`workbench("trace", model, "--out", folder)` runs that command."""

    return runner(main, monkeypatch, capsys)


def runner(
    entry_point: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Workbench:
    """Run an entry point with arguments and return its exit code and output."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            entry_point()
        out, err = capsys.readouterr()
        return Outcome(int(exit_info.value.code or 0), out, err)

    return run


def without(arguments: tuple[object, ...], *options: str) -> list[object]:
    """A command's arguments without these options and their values."""
    dropped = {place + after for place, each in enumerate(arguments) if each in options for after in (0, 1)}
    return [each for place, each in enumerate(arguments) if place not in dropped]
