"""Shared by the commands: messages, progress bars, and opening a study."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cache.wording import printable
from workbench.devices import check_device

if TYPE_CHECKING:
    import pandas as pd

    from workbench.studies.study import Study

WIDTH = 120  # width of tables in files and pipes, which have no width themselves

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Study folder.")]
AllowStore = Annotated[
    bool,
    typer.Option(
        "--allow-store",
        help="Trust the activation store that a study from elsewhere points to; needed once per study.",
    ),
]
Device = Annotated[str, typer.Option(help="Torch device, such as cpu or cuda.", callback=check_device)]

# Square brackets and colons in users' texts are neither markup nor emoji.
_plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
if find_spec("ipywidgets") is None:
    _plain["force_jupyter"] = (
        False  # in a notebook, rich then warns at every step of a bar instead of drawing it
    )
console = Console(stderr=True, **_plain)
"""Console for messages and progress bars."""
output = Console(**_plain)
"""Console for the output of a command, such as tables."""


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with a title and the remaining time; call the yielded function with (done, total)."""
    title_column = TextColumn("{task.description:<24}", markup=False)
    columns = (title_column, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bars:
        bar = bars.add_task(title, total=None, visible=False)
        yield lambda done, total: bars.update(bar, completed=done, total=total, visible=True)


@contextmanager
def progress_of_parts() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show a progress bar for each part of a long run; call the yielded function with a part's title, as it begins."""
    with ExitStack() as bars:

        def begin(title: str) -> Callable[[int, int], None]:
            bars.close()
            return bars.enter_context(progress(title))

        yield begin


def note(sentence: str) -> None:
    """Print a sentence that a user should know before a long run."""
    console.print(Text.assemble(("Note: ", "bold yellow"), printable(sentence)), soft_wrap=True)


def command_line() -> str:
    """The command that runs, as it was given."""
    return shlex.join(["workbench", *sys.argv[1:]])


def open_study(folder: Path, allow_store: bool = False) -> "Study":
    """Open the study in a folder, confirming its store if `allow_store`; raise UserError if there is none."""
    from workbench.studies.study import Study

    study = Study.open(folder)
    if allow_store:
        study.confirm()
    return study


def print_rows(rows: Mapping[str, str]) -> None:
    """Print a table of two columns, names and texts; empty texts are left out."""
    table = Table(show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        if text:
            table.add_row(printable(name), "\n".join(map(printable, text.split("\n"))))
    output.print(table)


def print_table(title: str, frame: "pd.DataFrame") -> None:
    """Print a table of texts; names come from users and are never markup."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in frame.columns:
        table.add_column(Text(str(name)), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(printable(str(value))) for value in row))
    wide = output if output.is_terminal else Console(width=WIDTH)
    wide.print(Text(title, style="bold"), table, sep="\n")
