"""Where artefacts come from: a file, a folder, or a repository on the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import UserError
from cache.opening import checked_path
from workbench.artefacts.pickles import check_file, read_bytes
from workbench.documents import parse_document
from workbench.hub import is_hub_id
from workbench.provenance import file_hash
from workbench.tensor_files import MAX_BYTES

_LONGEST_CONFIG = 2**20


@dataclass(frozen=True)
class Origin:
    """What an artefact was read from: the source as it was given, the file with the numbers, and its SHA-256.

    `settings` is the artefact's own configuration, as its authors wrote it.
    """

    source: str
    file: Path
    sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def open_source(source: str, patterns: Sequence[str]) -> Path:
    """A local file or folder, or the downloaded files of a hub repository (owner/name) that match `patterns`.

    Raises UserError for what is neither, and when the hub cannot be reached or has no such repository.
    """
    if Path(source).exists() or not is_hub_id(source):
        if not Path(source).exists():
            raise UserError(f"There is no file or folder {source}, and it is no hub id (owner/name).")
        return Path(source)
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # whatever the hub's client raises is one of them
        raise UserError(
            f"'{source}' is no file or folder here, and the hub has no repository of that name that can be reached: "
            f"check the name and the connection, or fetch it elsewhere with `hf download {source} --local-dir FOLDER` "
            "and import the folder."
        ) from error


def find_artefact(
    source: str, pattern: str, configs: Sequence[str] = (), config_needed: bool = False
) -> Origin:
    """The one file of a source that matches `pattern`, with the first of `configs` that lies beside it.

    Raises UserError when there is no such file or several, and when a configuration that is needed is missing.
    """
    path = open_source(source, [pattern, *configs])
    files = [path] if not path.is_dir() else sorted(path.glob(pattern))
    if len(files) != 1:
        told = (
            f"several files {pattern} ({', '.join(file.name for file in files)})"
            if files
            else f"no {pattern}"
        )
        raise UserError(f"{source} has {told}: give the folder of one artefact, or the file.")
    config = next((files[0].parent / name for name in configs if (files[0].parent / name).exists()), None)
    if config is None and config_needed:
        raise UserError(f"{source} has no {' or '.join(configs)}, which tells what its numbers are.")
    if path.is_dir():
        check_inside(path, *filter(None, (files[0], config)))
    return Origin(source, files[0], sha256_of(files[0]), read_settings(config) if config else {})


def check_inside(folder: Path, *files: Path) -> None:
    """Raise UserError unless files of an artefact's folder lie in it.

    A link may lead out of it only where the folder is one of the hub's cache, which has links to its own `blobs`.
    """
    snapshot = folder.resolve()
    blobs = snapshot.parent.parent / "blobs"
    for file in files:
        is_blob = snapshot.parent.name == "snapshots" and file.resolve().parent == blobs
        if not (file.is_symlink() and is_blob) and file.exists():
            checked_path(folder, file.relative_to(folder))


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes; raises UserError when it cannot be read, or is larger than any artefact."""
    check_file(file, MAX_BYTES)
    return file_hash(file)


def read_settings(file: Path) -> dict[str, Any]:
    """A configuration (a JSON object); raises UserError for anything else."""
    raw = read_bytes(file, _LONGEST_CONFIG)
    try:
        return parse_document(raw)
    except ValueError as error:
        raise UserError(
            f"{file} is not the JSON that the settings of an artefact are ({' '.join(str(error).split())})."
        ) from error
