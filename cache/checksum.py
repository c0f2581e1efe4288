"""Checksums: CRC-32C after each chunk and index, as in zarr's codec; XXH3 of files and of manifest lines.

There are two kinds because the CRC-32C of data followed by its own CRC-32C is a constant.
"""

import threading
from collections import defaultdict
from collections.abc import Hashable

import xxhash
from crc32c import crc32c

from cache.protocol import CHECKSUM_BYTES
from cache.storage import Storage


def crc_bytes(data: bytes | memoryview) -> bytes:
    """Return the CRC-32C that follows `data` in a shard file: 4 bytes, little-endian."""
    return int(crc32c(data)).to_bytes(CHECKSUM_BYTES, "little")


def xxh3(data: bytes) -> str:
    """Return the 64-bit XXH3 of `data` as 16 lowercase hexadecimal digits."""
    return str(xxhash.xxh3_64_hexdigest(data))


def xxh3_of_file(storage: Storage, name: str, size: int) -> str:
    """Return the XXH3 of the first `size` bytes of a name, read in pieces."""
    digest = xxhash.xxh3_64()
    for piece in storage.pieces(name, size):
        digest.update(piece)
    return digest.hexdigest()


# Files verified in this process: (version of the file, checksum).
_intact: set[tuple[Hashable, str]] = set()
_turns: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)


def is_intact(storage: Storage, name: str, size: int, expected: str) -> bool:
    """Whether a file has the expected XXH3. A file is read for this once per process, unless it changes.

    Object stores are not checked, because that would download whole objects.
    """
    version = storage.version(name)
    if version is None:
        return True
    with _turns[version]:  # other threads that need this file wait until the first has read it
        if (version, expected) not in _intact:
            if xxh3_of_file(storage, name, size) != expected:
                return False
            _intact.add((version, expected))
    return True


def forget() -> None:
    """Forget which files were verified, as in a new process; for benchmarks."""
    _intact.clear()
