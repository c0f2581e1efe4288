"""One shard file: the bytes of zarr's sharding codec, chunks first and then the index of where they are.

zarr's specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import numpy as np
from jaxtyping import Shaped, UInt64
from numcodecs.zstd import Zstd

from cache import checksum
from cache.encoding import STORED
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


def parse_chunk(
    plan: CachePlan, site: str, content: memoryview
) -> Shaped[np.ndarray, "clip step pass token channel"]:
    """The values, as stored, of a chunk as it lies in a shard file; uncompressed ones share its memory.

    Raises:
        ValueError: if it does not fit its checksum or its shape.
    """
    values, stated = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if stated != checksum.crc_bytes(values):
        raise ValueError("a chunk does not fit its checksum")
    if plan.zstd_level:
        values = memoryview(Zstd().decode(values))
    return np.frombuffer(values, STORED[plan.dtypes[site]]).reshape(plan.chunk_shape(site))
