"""Artefacts as the workbench stores them: one safetensors file with metadata, written atomically."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import UserError
from cache.opening import UnsafeFile, checked_folder
from workbench.artefacts.base import Artefact
from workbench.documents import parse_document
from workbench.files import file_name
from workbench.provenance import code_version
from workbench.tensor_files import load_tensors, write_tensors

FORMAT = "workbench-artefact"
FORMAT_VERSION = 1
FOLDER = "imported"
_REQUIRED = ("kind", "concept", "positive", "negative", "source")


@dataclass(frozen=True)
class Imported:
    """A stored artefact: its metadata, and the shape and row norms of each array."""

    file: Path
    metadata: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    norms: Mapping[str, tuple[float, float]]  # smallest and largest over the rows

    @property
    def polarity(self) -> str:
        """Meaning of + and −."""
        concept, positive, negative = (self.metadata[key] for key in ("concept", "positive", "negative"))
        return f"{concept}: + is {positive}, − is {negative}"


def metadata_of(artefact: Artefact) -> dict[str, Any]:
    """Return all metadata written with an artefact's arrays."""
    concept, origin = artefact.concept, artefact.origin
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": artefact.kind,
        "concept": concept.name,
        "positive": concept.positive,
        "negative": concept.negative,
        "positive_prompt": concept.positive_prompt,
        "negative_prompt": concept.negative_prompt,
        **artefact.metadata(),
        "settings": dict(origin.settings),
        "source": origin.source,
        "source_file": origin.file.name,
        "source_sha256": origin.sha256,
        "code_version": code_version(),
    }


def write_artefact(artefact: Artefact, file: Path, root: Path | None = None) -> Path:
    """Write an artefact with its metadata (each value as JSON) as safetensors.

    Args:
        artefact: what to write.
        file: where to write it.
        root: the study's folder, if the file is in a study; links between the two are not followed.

    Returns:
        `file`.

    Raises:
        UserError: if the file cannot be written; an existing file is then unchanged.
    """
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in metadata_of(artefact).items()}
    write_tensors(file, artefact.arrays(), metadata, root)
    return file


def study_file(study_path: Path, name: str) -> Path:
    """Return the file in which a study stores the imported artefact called `name`."""
    return study_path / FOLDER / f"{file_name(name)}.safetensors"


def open_imported(file: Path) -> Imported:
    """Open an artefact that `write_artefact` wrote into a study; raise UserError for other or damaged files."""
    study = file.parent.parent
    try:
        arrays, texts = load_tensors(study, file.relative_to(study))
        metadata = {name: parse_document(f'{{"": {text}}}')[""] for name, text in texts.items()}
        if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"not an artefact of format {FORMAT_VERSION}")
        missing = [name for name in _REQUIRED if not isinstance(metadata.get(name), str)]
        if (
            missing
            or not arrays
            or not all(array.size and array.dtype.kind in "fiub" for array in arrays.values())
        ):
            raise ValueError(f"it lacks {', '.join(missing) or 'numbers'}")
    except UnsafeFile:
        raise
    except (ValueError, UserError) as error:
        raise UserError(
            f"{file} is damaged or was not written by `workbench import` ({str(error)[:200]}). Import it again."
        ) from error
    return Imported(
        file,
        metadata,
        {name: array.shape for name, array in arrays.items()},
        {name: _norms(array) for name, array in arrays.items()},
    )


def list_imported(study_path: Path) -> list[Imported]:
    """Open all imported artefacts of a study, sorted by file name."""
    return [open_imported(file) for file in imported_files(study_path)]


def imported_files(study_path: Path) -> list[Path]:
    """Return the files in a study's folder of imported artefacts; raise UnsafeFile if the folder is a link."""
    return sorted(checked_folder(study_path, FOLDER).glob("*.safetensors"))


def _norms(array: np.ndarray) -> tuple[float, float]:
    norms = np.linalg.norm(np.atleast_2d(array).astype(np.float64), axis=-1)
    return float(norms.min()), float(norms.max())
