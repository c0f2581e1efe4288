"""Commands for steering vectors and their files, packs."""

from pathlib import Path
from typing import Annotated

import typer

from cache.errors import UserError
from workbench.cli.console import StudyFolder, note, open_study, output, print_rows, print_table
from workbench.cli.parsing import CommandLine

app = CommandLine(help="Show, list, import and export steering vectors.", no_args_is_help=True)

Pack = Annotated[Path, typer.Argument(metavar="PACK", help="File of a steering vector.")]


@app.command()
def show(pack: Pack) -> None:
    """Describe a steering vector: concept, sites, norms, base model, sampling, pairs and reliability."""
    from analyses.steering import load_vector
    from analyses.steering.pack_summary import pack_facts, pack_sites

    vector = load_vector(pack)
    print_rows(pack_facts(vector))
    print_table(
        "Sites (means over the steps; cosines compare directions of disjoint pairs)", pack_sites(vector)
    )


@app.command("list")
def list_packs(study_folder: StudyFolder) -> None:
    """List the steering vectors of a study, in its folder packs."""
    import pandas as pd

    from analyses.steering.pack_summary import pack_line
    from analyses.steering.study_packs import load_packs

    packs = load_packs(open_study(study_folder).path)
    lines = [pack_line(name, pack) for name, pack in packs.items() if not isinstance(pack, UserError)]
    if lines:
        print_table(f"Steering vectors of {study_folder}", pd.DataFrame(lines))
    elif not packs:
        output.print(f"{study_folder} has no steering vectors.", soft_wrap=True)
    for pack in packs.values():
        if isinstance(pack, UserError):
            note(str(pack))
