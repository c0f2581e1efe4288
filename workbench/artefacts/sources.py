"""Sources of artefacts: a file, a folder, or a repository on the Hugging Face hub."""

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
    """The origin of an artefact: the source as given, the file with the numbers, and its SHA-256.

    `settings` is the configuration that its authors published with it.
    """

    source: str
    file: Path
    sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def open_source(source: str, patterns: Sequence[str]) -> Path:
    """Return a local file or folder, or download the files of a hub repository (owner/name) that match `patterns`.

    Raises:
        UserError: if `source` is neither, or the hub cannot be reached or has no such repository.
    """
    if Path(source).exists() or not is_hub_id(source):
        if not Path(source).exists():
            raise UserError(f"{source} is neither an existing file or folder nor a hub id (owner/name).")
        return Path(source)
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # all errors of the hub's client are one of these
        raise UserError(
            f"Cannot download '{source}' from the hub. Check the name and the connection, or download it elsewhere "
            f"with `hf download {source} --local-dir FOLDER` and import that folder."
        ) from error


def find_artefact(
    source: str, pattern: str, configs: Sequence[str] = (), config_needed: bool = False
) -> Origin:
    """Find the one file of a source that matches `pattern`, and the first of `configs` that is beside it.

    Raises:
        UserError: if no file or several files match, or a required configuration is missing.
    """
    path = open_source(source, [pattern, *configs])
    files = [path] if not path.is_dir() else sorted(path.glob(pattern))
    if len(files) != 1:
        problem = (
            f"several files {pattern} ({', '.join(file.name for file in files)})"
            if files
            else f"no {pattern}"
        )
        raise UserError(f"{source} has {problem}. Give the folder of one artefact, or the file itself.")
    config = next((files[0].parent / name for name in configs if (files[0].parent / name).exists()), None)
    if config is None and config_needed:
        raise UserError(f"{source} must have a {' or '.join(configs)} that describes the artefact.")
    if path.is_dir():
        check_inside(path, *filter(None, (files[0], config)))
    return Origin(source, files[0], sha256_of(files[0]), read_settings(config) if config else {})


def check_inside(folder: Path, *files: Path) -> None:
    """Raise UserError unless all files are inside the artefact's folder.

    A link may point outside only if the folder is a snapshot in the hub's cache, whose links point to its own `blobs`.
    """
    snapshot = folder.resolve()
    blobs = snapshot.parent.parent / "blobs"
    for file in files:
        is_blob = snapshot.parent.name == "snapshots" and file.resolve().parent == blobs
        if not (file.is_symlink() and is_blob) and file.exists():
            checked_path(folder, file.relative_to(folder))


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file; raise UserError if it cannot be read or is too large for an artefact."""
    check_file(file, MAX_BYTES)
    return file_hash(file)


def read_settings(file: Path) -> dict[str, Any]:
    """Read a configuration; raise UserError unless it is a JSON object."""
    raw = read_bytes(file, _LONGEST_CONFIG)
    try:
        return parse_document(raw)
    except ValueError as error:
        raise UserError(
            f"{file} must be a JSON object with the artefact's settings ({' '.join(str(error).split())})."
        ) from error
