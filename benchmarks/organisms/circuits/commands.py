"""The command that trains the organisms with planted circuits, and checks them."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.organisms.circuits.loading import FOLDER, find_circuit, load
from benchmarks.organisms.circuits.planted import CIRCUITS
from benchmarks.organisms.circuits.verify import Report, verify


def circuits(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"Some of {', '.join(CIRCUITS)}; all by default."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where trained organisms are kept.")] = FOLDER,
) -> None:
    """Train the organisms that are missing, check all, print planted and measured; exit code 1 if they disagree."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    reports = {}
    for name in [find_circuit(name).name for name in names or CIRCUITS]:
        model, circuit, _ = load(name, out)
        reports[name] = verify(model, circuit)
    Console().print(_table(reports))
    if not all(report.holds for report in reports.values()):
        raise typer.Exit(1)


def _table(reports: dict[str, Report]) -> Table:
    columns = ("organism", "clean", "corrupt", "patched", "sufficiency", "necessity", "holds")
    table = Table(*columns, title="measured (planted)", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, report in reports.items():
        heading = (name, f"{report.clean:z.2f}", f"{report.corrupt:z.2f}")
        for check in report.checks:
            table.add_row(
                *heading,
                check.arm,
                f"{check.sufficiency:z.2f} ({check.planted_sufficiency:.0f})",
                f"{check.necessity:z.2f} ({check.planted_necessity:.0f})",
                "yes" if check.holds else "NO",
            )
            heading = ("", "", "")
        table.add_section()
    return table
