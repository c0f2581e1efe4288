"""Open the files that steering uses: vectors, sliders and DEMON's packs, told apart by their metadata."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from cache.errors import UserError
from cache.opening import UnsafeFile
from cache.wording import printable
from workbench.tensor_files import NotTensors, load_tensors

Kind = Literal["steering_vector", "concept_slider"]
"""The metadata entry that has the header of such a file."""
_NAMES: dict[Kind, str] = {"steering_vector": "vector", "concept_slider": "slider"}
_USES = {
    "steering_vector": "a steering vector; `workbench steer apply --pack` uses it",
    "concept_slider": "a concept slider; `workbench steer apply --slider` uses it",
    "steering_pack": "a pack of DEMON; `workbench steer import` makes a vector of it",
}


class OtherKind(UserError):
    """A file of another kind than the one that was asked for; `kind` is its metadata entry."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnknownKind(UserError):
    """A file whose kind cannot be told, because it is of none or is damaged."""


def read_file(file: Path, kind: Kind, root: Path | None = None) -> tuple[dict[str, np.ndarray], str]:
    """Return the arrays and the header of a vector's or slider's file; `root` is the study that it is in, if it is.

    Raises:
        OtherKind: if it is a known file of another kind.
        UnknownKind: if it is not a safetensors file, or of no known kind.
        UserError: if it cannot be read or is damaged.
    """
    name = _NAMES[kind]
    if root is None:
        refuse_folder(file, f"Give the file of a {name}.")
    folder = root or file.parent
    try:
        arrays, texts = load_tensors(folder, file.relative_to(folder))
    except UnsafeFile:
        raise
    except OSError as error:
        raise UserError(
            f"The {name} {file} cannot be read ({error.strerror}). Give the path of its file."
        ) from error
    except NotTensors as error:
        raise UnknownKind(_damaged(file, kind, "it is not a valid safetensors file")) from error
    if kind not in texts:
        raise _other(file, kind, texts)
    return arrays, texts[kind]


def refuse_folder(file: Path, advice: str) -> None:
    """Raise UserError if a path that a user gives for a file is a folder."""
    if os.path.isdir(file) and not os.path.islink(file):
        raise UserError(f"{file} is a folder. {advice}")


def damaged(file: Path, kind: Kind, reason: str) -> UserError:
    """Return the error for a file that is not what it should be."""
    return UserError(_damaged(file, kind, reason))


def _damaged(file: Path, kind: Kind, reason: str) -> str:
    name = _NAMES[kind]
    why = printable(reason[:200].rstrip("."))
    return f"{file} is not a {name}, or is damaged ({why}). Give the file of a {name}."


def _other(file: Path, kind: Kind, texts: Mapping[str, str]) -> UserError:
    for other, use in _USES.items():
        if other in texts:
            return OtherKind(f"{file} is {use}.", other)
    hint = "; a published LoRA is read by wb.published_slider" if kind == "concept_slider" else ""
    return UnknownKind(_damaged(file, kind, f"it has no {_NAMES[kind]}{hint}"))
