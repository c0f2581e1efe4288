"""Parse shard files of zarr's sharding codec: chunks, then an index of their positions.

zarr's specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import numpy as np
from jaxtyping import Shaped, UInt64
from numcodecs.zstd import Zstd

from cache import checksum
from cache.plan import CachePlan
from cache.protocol import CHECKSUM_BYTES, NO_CHUNK, index_bytes, shard_file_name
from cache.storage import Storage

Index = UInt64[np.ndarray, "clip step pass 2"]


def read_index(storage: Storage, plan: CachePlan, site: str, shard: int, file_bytes: int) -> Index:
    """Read the index of a shard file of `file_bytes` bytes; raise as `Storage.read_into` and `parse_index` do."""
    length = index_bytes(plan.shard_shape(site), plan.chunk_shape(site))
    if length > file_bytes:
        raise ValueError(f"its index of {length} bytes is larger than the file of {file_bytes} bytes")
    tail = bytearray(length)
    storage.read_into(shard_file_name(site, shard), file_bytes - length, memoryview(tail))
    return parse_index(plan, site, bytes(tail), file_bytes)


def parse_index(plan: CachePlan, site: str, tail: bytes, file_bytes: int) -> Index:
    """Parse the offset and length of each chunk (clip, step, pass) from the end of a shard file.

    Raises:
        ValueError: if the index does not match its checksum, or points outside the file of `file_bytes` bytes.
    """
    content = memoryview(tail)[:-CHECKSUM_BYTES]
    if tail[-CHECKSUM_BYTES:] != checksum.crc_bytes(content):
        raise ValueError("its index does not match its checksum")
    index: Index = np.frombuffer(content, dtype="<u8").reshape(*plan.chunk_grid(site), 2)
    there = index[index[..., 0] != NO_CHUNK]
    offsets, lengths = there[..., 0], there[..., 1]
    end = file_bytes - len(tail)
    # Compared without adding offset and length, whose sum may overflow 64 bits.
    if (offsets > end).any() or (lengths > end - np.minimum(offsets, end)).any():
        raise ValueError("its index points outside the file")
    if (lengths < CHECKSUM_BYTES).any():
        raise ValueError("its index has chunks without a checksum")
    return index


def check_chunk(content: memoryview, crc: bytes | bytearray) -> None:
    """Raise ValueError unless an encoded chunk matches the CRC-32C that follows it."""
    if checksum.crc_bytes(content) != crc:
        raise ValueError("a chunk does not match its checksum")


def decompress(content: memoryview, out: Shaped[np.ndarray, "clip step pass token channel"]) -> None:
    """Decompress a chunk into an array of its shape; raise ValueError if the size differs."""
    size = _frame_bytes(content)
    if size not in (None, out.nbytes):  # zstd would not fill the rest of the array
        raise ValueError(f"a chunk decompresses to {size} bytes, not {out.nbytes}")
    try:
        Zstd().decode(content, out=out)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"a chunk cannot be decompressed ({error})") from error


def _frame_bytes(frame: memoryview) -> int | None:
    """Return the decompressed size that a zstd frame declares in bytes, or None if it declares none.

    The header's layout: https://datatracker.ietf.org/doc/html/rfc8878#name-frame-header
    """
    if len(frame) < 5:
        return None
    flag, is_single_segment, dictionary_flag = frame[4] >> 6, frame[4] >> 5 & 1, frame[4] & 3
    length = (is_single_segment, 2, 4, 8)[flag]
    start = 6 - is_single_segment + (0, 1, 2, 4)[dictionary_flag]
    size = int.from_bytes(frame[start : start + length], "little")
    return (size + 256 * (length == 2)) if length else None
