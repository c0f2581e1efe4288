"""Write a study's sparse autoencoder as a folder of another library."""

from pathlib import Path
from typing import Literal

from analyses.sae.names import load_sae
from cache.errors import UserError
from workbench.artefacts.sparsify import write_sparsify
from workbench.sae.folder import save_folder
from workbench.studies.study import Study


def export_sae(study: Study, name: str, form: Literal["saelens", "sparsify"], folder: Path) -> Path:
    """Write an autoencoder of a study to a new folder, and return the folder.

    Raises:
        UserError: if the study has none of this name, the library has no autoencoder of its kind, or the folder is not
            empty.
    """
    sae = load_sae(study, name)
    check_new(folder)
    if form == "sparsify":
        write_sparsify(sae, folder)
    elif sae.config.architecture == "topk_transcoder":
        raise UserError("SAELens has no TopK transcoders. Export it as sparsify.")
    else:
        save_folder(sae, folder)
    return folder


def check_new(folder: Path) -> None:
    """Raise UserError unless a folder is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists. Give a new or empty folder.")
