"""Write a study's sparse autoencoder as a folder of another library."""

from pathlib import Path
from typing import Literal

from analyses.sae.names import load_sae
from cache.errors import UserError
from workbench.artefacts.sparsify import write_sparsify
from workbench.sae.folder import save_folder
from workbench.studies.study import Study


def export_sae(
    study: Study, name: str, form: Literal["saelens", "sparsify"], folder: Path, step: int | None = None
) -> Path:
    """Write an autoencoder of a study to a new folder, and return the folder.

    Of one whose inputs were scaled per step, which no other library has, the one for the activations of `step`.

    Raises:
        UserError: if the study has none of this name, a step is missing or not one of its steps, the library has no
            autoencoder of its kind, or the folder is not empty.
    """
    sae = load_sae(study, name)
    check_new(folder)
    steps = sae.config.scaled_steps
    if bool(steps) != (step is not None):
        raise UserError(
            f"The inputs of '{name}' were scaled per step: export it for one of the steps {', '.join(map(str, steps))} "
            "with --step."
            if steps
            else f"'{name}' is the same at every step. Leave out --step."
        )
    if step is not None:
        sae = sae.at(step)
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
