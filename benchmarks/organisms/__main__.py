"""Train the organisms that are missing and check them: `python -m benchmarks.organisms [--out FOLDER] [NAME …]`."""

import argparse
import logging
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.organisms.circuits import CIRCUITS
from benchmarks.organisms.loading import FOLDER, find_circuit, load
from benchmarks.organisms.verify import Report, verify
from cache.errors import UserError


def main() -> None:
    """Train, check, and print planted and measured; exit code 1 where they disagree, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.organisms", description=__doc__)
    known = ", ".join(CIRCUITS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {known}; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where trained organisms are kept")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    try:
        names = [find_circuit(name).name for name in arguments.names or CIRCUITS]
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    reports = {}
    for name in names:
        model, circuit, _ = load(name, arguments.out)
        reports[name] = verify(model, circuit)
    Console().print(_table(reports))
    if not all(report.holds for report in reports.values()):
        sys.exit(1)


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


if __name__ == "__main__":
    main()
