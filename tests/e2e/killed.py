"""Run the command line in separate processes, possibly killed at a chosen moment, and hash the files left behind."""

import hashlib
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forks import CONTEXT, preload

preload(
    "analyses.patching.run",
    "analyses.probes.run",
    "analyses.sae.features",
    "analyses.sae.train",
    "dashboards.figures",
    "diffusers.pipelines.ace_step",
    "h5netcdf",
    "netCDF4",
    "workbench.cli.main",
    "workbench.models.ace_step",
    "workbench.scorers.embedded",
    "workbench.studies.tracing",
)

Killer = tuple[str, str, int]
"""Module, its function, and the number of the call instead of which the process kills itself."""


class Command:
    """A command in a separate process."""

    def __init__(self, *arguments: object, killer: Killer | None = None) -> None:
        descriptor, name = tempfile.mkstemp(suffix=".txt")
        os.close(descriptor)
        self._said = Path(name)
        words = ["workbench", *map(str, arguments)]
        self._process = CONTEXT.Process(target=_run, args=(words, killer, name), daemon=True)
        self._process.start()

    def end(self) -> tuple[int, str]:
        """Exit code and standard error, on one line."""
        self._process.join()
        said = " ".join(self._said.read_text().split())
        self._said.unlink()
        assert self._process.exitcode is not None
        return self._process.exitcode, said


def workbench(killer: Killer | None, *arguments: object) -> int:
    """Run a command, which is killed as `killer` says; returns its exit code."""
    code, said = Command(*arguments, killer=killer).end()
    assert code in (0, -signal.SIGKILL), said
    return code


def _run(words: list[str], killer: Killer | None, said: str) -> None:
    """The main function of the process."""
    with open(said, "w") as file, open(os.devnull, "w") as nothing:
        os.dup2(file.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    sys.argv = words
    if killer is not None:
        _kill_at(*killer)
    from workbench.cli.main import main

    main()


def _kill_at(module: str, name: str, count: int) -> None:
    owner: Any = importlib.import_module(module)
    *parts, last = name.split(".")
    for part in parts:
        owner = getattr(owner, part)
    setattr(owner, last, _deadly(getattr(owner, last), count))


def _deadly(original: Callable[..., Any], count: int) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    return counted


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file that a trace writes; study.json contains the date and is compared separately."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "study.json"]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
