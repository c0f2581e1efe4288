"""One shard file: the bytes of zarr's sharding codec, chunks first and then the index of where they are.

zarr's specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import numpy as np
from jaxtyping import Shaped, UInt64
from numcodecs.zstd import Zstd

from cache import checksum
from cache.plan import CachePlan
from cache.protocol import CHECKSUM_BYTES, NO_CHUNK, chunk_grid

Index = UInt64[np.ndarray, "clip step pass 2"]


def parse_index(plan: CachePlan, site: str, tail: bytes, file_bytes: int) -> Index:
    """Offset and length of each chunk (clip, step, pass) from the end of a shard file of `file_bytes` bytes.

    Raises:
        ValueError: if it does not fit its checksum, or names places outside the file.
    """
    content = memoryview(tail)[:-CHECKSUM_BYTES]
    if tail[-CHECKSUM_BYTES:] != checksum.crc_bytes(content):
        raise ValueError("its index does not fit its checksum")
    grid = chunk_grid(plan.shard_shape(site), plan.chunk_shape(site))
    index: Index = np.frombuffer(content, dtype="<u8").reshape(*grid, 2)
    there = index[index[..., 0] != NO_CHUNK]
    if there.size and int(there.sum(axis=-1).max()) > file_bytes - len(tail):
        raise ValueError("its index names chunks outside the file")
    return index


def check_chunk(content: memoryview, crc: bytes | bytearray) -> None:
    """Compare a chunk as it lies in a shard file with the 4 bytes that follow it; raises ValueError."""
    if checksum.crc_bytes(content) != crc:
        raise ValueError("a chunk does not fit its checksum")


def decompress(content: memoryview, out: Shaped[np.ndarray, "clip step pass token channel"]) -> None:
    """Put the values of a compressed chunk into an array of its shape; raises ValueError if they do not fit."""
    try:
        Zstd().decode(content, out=out)
    except RuntimeError as error:
        raise ValueError(f"a chunk cannot be decompressed ({error})") from error
