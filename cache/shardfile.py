"""One shard file: the bytes of zarr's sharding codec, chunks first and then the index of where they are.

zarr's specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from cache import checksum
from cache.encoding import FILL, STORED, encode
from cache.protocol import Dtype, Shape

_NEVER_WRITTEN = np.iinfo(np.uint64).max


def write_shard_file(
    path: Path,
    values: Shaped[np.ndarray, "clip step pass token channel"],
    dtype: Dtype,
    shard: Shape,
    chunk: Shape,
) -> tuple[int, int]:
    """Encode values chunk by chunk into a new, synced shard file.

    Written here and not through zarr because zarr assembles a whole shard in memory (several times over),
    and because here the order of the chunks in the file is ours to fix.

    Args:
        path: file to write.
        values: all clips of the shard; fewer than `shard[0]` in an array's last shard.
        dtype: number format on disk.
        shard, chunk: shape of a full shard and of its inner chunks, (clip, step, pass, token, channel).

    Returns:
        Size of the file in bytes, and its CRC-32C.

    Raises:
        ValueError: for values that cannot be stored (see `cache.encoding.encode`).
    """
    grid = tuple(length // inner for length, inner in zip(shard, chunk, strict=True))
    index = np.full((*grid, 2), _NEVER_WRITTEN, dtype="<u8")
    offset = crc = 0
    with path.open("wb") as file:
        for position in np.ndindex(*grid):
            corner = [i * inner for i, inner in zip(position, chunk, strict=True)]
            block = values[
                tuple(slice(start, start + inner) for start, inner in zip(corner, chunk, strict=True))
            ]
            if len(block) == 0:
                continue
            stored = _padded(encode(block, dtype), chunk, dtype)
            file.write(stored.data)
            crc = checksum.extend(crc, stored)
            index[position] = (offset, stored.nbytes)
            offset += stored.nbytes
        tail = index.tobytes()
        tail += checksum.of_bytes(tail).to_bytes(4, "little")
        file.write(tail)
        file.flush()
        os.fsync(file.fileno())
    return offset + len(tail), checksum.extend(crc, np.frombuffer(tail, np.uint8))


def _padded(
    stored: Shaped[np.ndarray, "clip step pass token channel"], chunk: Shape, dtype: Dtype
) -> Shaped[np.ndarray, "chunk_clip step pass token channel"]:
    """A C-contiguous whole chunk: what lies beyond the array's last clip is the fill value."""
    if stored.shape == chunk:
        return np.ascontiguousarray(stored)
    whole = np.full(chunk, FILL[dtype], dtype=STORED[dtype])
    whole[: len(stored)] = stored
    return whole
