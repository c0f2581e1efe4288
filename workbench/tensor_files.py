"""Write safetensors files, and read those from untrusted sources: the header is checked before any array is loaded."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cache.errors import UserError
from cache.opening import open_file
from cache.protocol import canonical_json
from workbench.files import replacing

MAX_BYTES = 16 * 2**30
MAX_HEADER_BYTES = 16 * 2**20
MAX_AXES = 8
_SEAL = "sha256"
_NUMBERS = {"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "BF16", "F32", "F64"}


class NotTensors(UserError):
    """A file that is not a valid safetensors file."""


def tensor_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file.

    To be written by the caller: safetensors' own `save_file` writes to a temporary file of its own, which a killed
    process leaves behind, and gives the file a mode that only its owner can read.
    """
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(plain, dict(metadata) if metadata else None)


def digests(arrays: Mapping[str, np.ndarray]) -> dict[str, list[object]]:
    """Return dtype, shape and SHA-256 of each array, which show damage: safetensors files have no checksums."""
    data = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {
        name: [array.dtype.str, list(array.shape), hashlib.sha256(array.data).hexdigest()]
        for name, array in data.items()
    }


def sealed(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return metadata with a hash of them and of the arrays, by which `is_whole` finds damage."""
    content = canonical_json([dict(metadata), digests(arrays)])
    return {**metadata, _SEAL: hashlib.sha256(content.encode()).hexdigest()}


def is_whole(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these are metadata that `sealed` returned, and the arrays that it was given."""
    return sealed({name: text for name, text in metadata.items() if name != _SEAL}, arrays) == metadata


def write_tensors(
    file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], root: Path | None = None
) -> None:
    """Write a safetensors file atomically; see `workbench.files.replacing` for `root`.

    Raises:
        UserError: if the file cannot be written; an existing file is then unchanged.
    """
    if os.path.isdir(file):  # also where no file can be
        raise UserError(f"{file} is a folder. Give the name of a file to write.")
    with replacing(file, root) as partial:
        partial.write_bytes(tensor_bytes(arrays, metadata))


def load_tensors(
    root: Path, name: str | Path, limit: int = MAX_BYTES
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Load the arrays (bfloat16 as float32) and the metadata of a safetensors file in `root`.

    Raises:
        NotTensors: if the file is damaged, or declares more than it has.
        FileNotFoundError, cache.opening.UnsafeFile: as `cache.opening.open_file` raises them.
    """
    with open_file(root, name, limit) as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER_BYTES:
        raise NotTensors(
            f"{root / name} is not a valid safetensors file (it declares a header of {header} bytes)."
        )
    try:
        return _load(root / name)
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError) as error:
        raise NotTensors(
            f"{root / name} is not a valid safetensors file ({' '.join(str(error).split())})."
        ) from error


def _load(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(file, "np") as stored:
        names, metadata = list(stored.keys()), stored.metadata() or {}
        kinds = {}
        for name in names:
            declared = stored.get_slice(name)
            kinds[name] = declared.get_dtype()
            if kinds[name] not in _NUMBERS or len(declared.get_shape()) > MAX_AXES:
                raise ValueError(f"{name[:80]} is not an array of plain numbers with up to {MAX_AXES} axes")
        # Copied: of a view of the file, the numbers change with it, and a shorter file ends the process.
        arrays = {name: np.array(stored.get_tensor(name)) for name in names if kinds[name] != "BF16"}
    arrays |= _bfloat16(file, [name for name in names if kinds[name] == "BF16"])
    return {name: arrays[name] for name in names}, metadata


def _bfloat16(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Load bfloat16 arrays as float32. NumPy has no bfloat16, and torch is slow to import, which this does."""
    if not names:
        return {}
    with safe_open(file, "pt") as stored:
        return {name: stored.get_tensor(name).float().numpy() for name in names}
