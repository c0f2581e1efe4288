"""Read safetensors files from untrusted sources: their header is checked before any array is loaded."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from cache.errors import UserError
from cache.opening import open_file

MAX_BYTES = 16 * 2**30
MAX_HEADER_BYTES = 16 * 2**20
MAX_AXES = 8
_NUMBERS = {"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "BF16", "F32", "F64"}


def load_tensors(
    root: Path, name: str | Path, limit: int = MAX_BYTES
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Load the arrays (bfloat16 as float32) and the metadata of a safetensors file in `root`.

    Raises:
        UserError: if the file is damaged, or declares more than it has.
        FileNotFoundError, cache.opening.UnsafeFile: as `cache.opening.open_file` raises them.
    """
    with open_file(root, name, limit) as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER_BYTES:
        raise UserError(
            f"{root / name} is not a valid safetensors file (it declares a header of {header} bytes)."
        )
    try:
        return _load(root / name)
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{root / name} is not a valid safetensors file ({' '.join(str(error).split())})."
        ) from error


def _load(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(file, "pt") as stored:  # numpy has no bfloat16
        names = list(stored.keys())
        for name in names:
            declared = stored.get_slice(name)
            if declared.get_dtype() not in _NUMBERS or len(declared.get_shape()) > MAX_AXES:
                raise ValueError(f"{name[:80]} is not an array of plain numbers with up to {MAX_AXES} axes")
        tensors = {name: stored.get_tensor(name) for name in names}
        metadata = stored.metadata() or {}
    is_bfloat16 = {name: str(tensor.dtype) == "torch.bfloat16" for name, tensor in tensors.items()}
    return {
        name: (tensor.float() if is_bfloat16[name] else tensor).numpy() for name, tensor in tensors.items()
    }, metadata
