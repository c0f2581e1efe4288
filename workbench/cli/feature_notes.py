"""Commands for the labels, notes, stars and sets that people write about features."""

from pathlib import Path
from typing import Annotated

import typer

from cache.errors import UserError
from workbench.cli.console import AllowStore, StudyFolder, open_study, output
from workbench.cli.parsing import CommandLine

app = CommandLine(help="Export and import labels, notes, stars and sets of features.", no_args_is_help=True)


@app.command()
def export(
    study_folder: StudyFolder,
    out: Annotated[Path, typer.Option("--out", help="CSV file to write.")],
    name: Annotated[str, typer.Option("--name", help="Autoencoder; by default all.")] = "",
    allow_store: AllowStore = False,
) -> None:
    """Write the labels, notes, stars and sets of features to a CSV file."""
    from analyses.sae.names import check_has
    from workbench.files import replacing
    from workbench.studies.feature_notes_csv import notes_csv

    study = open_study(study_folder, allow_store)
    if name:
        check_has(study, name)
    content = notes_csv(study.path, name or None)
    with replacing(out) as partial:
        partial.write_text(content, encoding="utf-8")
    output.print(f"Wrote the labels, notes, stars and sets of features to {out}.", soft_wrap=True)


@app.command("import")
def import_file(
    study_folder: StudyFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file, as `export` writes it.")],
    allow_store: AllowStore = False,
) -> None:
    """Write what a CSV file has into a study; replaced labels and notes are kept as earlier ones."""
    from analyses.sae.names import load_sae, sae_names
    from cache.opening import read_file
    from workbench.studies.feature_notes_csv import MOST_BYTES, import_notes, imported_sentence
    from workbench.text_files import no_file

    if not file.exists():
        raise UserError(no_file(file))
    study = open_study(study_folder, allow_store)
    content = read_file(file.parent, file.name, MOST_BYTES)
    saes = {name: load_sae(study, name).config.d_sae for name in sae_names(study)}
    imported = import_notes(study.path, content, saes)
    output.print(f"{study_folder}: {imported_sentence(imported)}", soft_wrap=True)
