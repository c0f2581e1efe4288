"""Packs of a study, in its folder `packs`."""

from pathlib import Path

from analyses.steering.study_files import pack_file, pack_files
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError


def save_pack(study: Path, name: str, vector: Vector) -> Path:
    """Write a vector into a study's folder; raise UserError as `Vector.save` does, or if its path contains a link."""
    return vector.save(pack_file(study, name), root=study)


def load_packs(study: Path) -> dict[str, Vector | UserError]:
    """Load the packs of a study by file name without ending, in order; those that cannot be read are their error."""
    return {file.stem: _loaded(file, study) for file in pack_files(study)}


def _loaded(file: Path, study: Path) -> Vector | UserError:
    try:
        return load_vector(file, root=study)
    except UserError as error:
        return error
