"""A study's steering vectors (packs), each read once per version of its file."""

from functools import lru_cache
from pathlib import Path

from analyses.steering.study_files import pack_files
from analyses.steering.vector_content import VectorContent, load_content
from cache.errors import UserError
from dashboards.results import Identity
from workbench.files import file_version
from workbench.studies.study import Study


def pack_names(study: Study) -> list[str]:
    """Names of the study's vectors, damaged or not; none if their folder cannot be read."""
    try:
        return [file.stem for file in pack_files(study.path)]
    except UserError:
        return []


def readable_packs(study: Study) -> list[str]:
    """Names of the study's vectors that can be read."""
    return [name for name in pack_names(study) if _is_readable(study, name)]


def _is_readable(study: Study, name: str) -> bool:
    try:
        load_pack(study, name)
    except UserError:
        return False
    return True


def load_pack(study: Study, name: str) -> VectorContent:
    """Load one of the study's vectors by its name.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = pack_path(study, name)
    try:
        return _load(file, study.path, file_version(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error


def pack_path(study: Study, name: str) -> Path:
    """The file of one of the study's vectors; raise UserError if there is none."""
    files = {file.stem: file for file in pack_files(study.path)}
    if name not in files:
        have = ", ".join(readable_packs(study)) or ("none that can be read" if files else "none yet")
        raise UserError(
            f"{study.path} has no steering vector '{name}' (it has {have}): make one with `workbench steer fit`."
        )
    return files[name]


@lru_cache(maxsize=32)
def _load(file: Path, root: Path, version: Identity) -> VectorContent:
    del version  # only part of the cache key: a changed file is read again
    return load_content(file, root=root)
