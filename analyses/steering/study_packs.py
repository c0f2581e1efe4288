"""Packs of a study, in its folder `packs`."""

from pathlib import Path

from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from cache.opening import checked_folder
from workbench.files import file_name

FOLDER = "packs"


def pack_file(study: Path, name: str) -> Path:
    """Return the file of the pack called `name` in a study's folder."""
    return study / FOLDER / f"{file_name(name)}.safetensors"


def find_pack(study: Path, name: str) -> Path:
    """Return the file of a study's pack by its name, or by its file's name as `load_packs` gives it."""
    listed = study / FOLDER / f"{name}.safetensors"
    return listed if listed in pack_files(study) else pack_file(study, name)


def check_new_pack(study: Path, name: str) -> None:
    """Raise UserError if the study has a pack of this name, which must not be lost."""
    file = pack_file(study, name)
    if file.exists():
        raise UserError(
            f"{study} has a vector '{name}' already. Give another name (--name), delete {file}, or judge it with "
            "`workbench steer check`."
        )


def save_pack(study: Path, name: str, vector: Vector) -> Path:
    """Write a vector into a study's folder; raise UserError as `Vector.save` does, or if its path contains a link."""
    return vector.save(pack_file(study, name), root=study)


def load_packs(study: Path) -> dict[str, Vector | UserError]:
    """Load the packs of a study by file name without ending, in order; those that cannot be read are their error."""
    return {file.stem: _loaded(file, study) for file in pack_files(study)}


def pack_files(study: Path) -> list[Path]:
    """Return the files in a study's folder of packs; raise UnsafeFile if the folder is a link."""
    return sorted(checked_folder(study, FOLDER).glob("*.safetensors"))


def _loaded(file: Path, study: Path) -> Vector | UserError:
    try:
        return load_vector(file, root=study)
    except UserError as error:
        return error
