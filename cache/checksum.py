"""CRC-32C, the checksum of shard files, of shard indexes and of manifest lines."""

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Shaped

_PIECE_BYTES = 4 * 2**20


def extend(crc: int, values: Shaped[np.ndarray, "..."]) -> int:
    """The checksum after more bytes: those of a C-contiguous array."""
    # The C function refuses writable memoryviews but takes byte arrays, without a copy.
    data: Any = values.reshape(-1).view(np.uint8)
    return int(google_crc32c.extend(crc, data))


def of_bytes(data: bytes) -> int:
    """The checksum of some bytes."""
    return int(google_crc32c.value(data))


def of_file(path: Path) -> int:
    """The checksum of a file's content, read in pieces."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            crc = int(google_crc32c.extend(crc, piece))
    return crc


def to_hex(crc: int) -> str:
    """A checksum as written in the manifest: 8 lowercase hexadecimal digits."""
    return f"{crc:08x}"
