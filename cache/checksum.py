"""Checksums: CRC-32C after each chunk and index, as zarr's codec has it; XXH3 of files and of manifest lines.

Two kinds, because the CRC-32C of bytes that end in their own CRC-32C is the same whatever the bytes are.
"""

import threading
from collections import defaultdict
from collections.abc import Hashable

import xxhash
from crc32c import crc32c

from cache.protocol import CHECKSUM_BYTES
from cache.storage import Storage


def crc_bytes(data: bytes | memoryview) -> bytes:
    """The CRC-32C of some bytes as it follows them in a shard file: 4 bytes, little endian."""
    return int(crc32c(data)).to_bytes(CHECKSUM_BYTES, "little")


def xxh3(data: bytes) -> str:
    """The XXH3 (64 bits) of some bytes: 16 lowercase hexadecimal digits."""
    return str(xxhash.xxh3_64_hexdigest(data))


def xxh3_of_file(storage: Storage, name: str, size: int) -> str:
    """The XXH3 of a name's `size` bytes, read in pieces."""
    digest = xxhash.xxh3_64()
    for piece in storage.pieces(name, size):
        digest.update(piece)
    return digest.hexdigest()


# What was compared in this process: (storage's word for a file as it is now, checksum).
_intact: set[tuple[Hashable, str]] = set()
_turns: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)


def is_intact(storage: Storage, name: str, size: int, expected: str) -> bool:
    """Whether a file's XXH3 is the one expected. It is read for that once in a process, unless it changes.

    Of an object store, whose objects would have to be fetched whole, nothing is compared.
    """
    version = storage.version(name)
    if version is None:
        return True
    with _turns[version]:  # whoever else wants this file now waits for the first to have read it
        if (version, expected) not in _intact:
            if xxh3_of_file(storage, name, size) != expected:
                return False
            _intact.add((version, expected))
    return True


def forget() -> None:
    """Let every file be compared anew, as in a new process: for measuring."""
    _intact.clear()
