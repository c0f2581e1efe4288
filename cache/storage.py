"""The storage of a cache, a local folder or a prefix of an object store, behind one small protocol."""

import os
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cache.errors import UserError

# Limit of `read`: the manifest of the largest cache is far smaller.
READ_LIMIT = 2**28


@runtime_checkable
class Claim(Protocol):
    """The right to write some shards, held until it is closed or the process ends."""

    def check(self) -> None:
        """Raise CacheError if the claim was lost to another writer."""
        ...

    def close(self) -> None:
        """Release the claim."""
        ...


@runtime_checkable
class Storage(Protocol):
    """Named byte strings under one location; names have forward slashes.

    A name appears complete or not at all, whenever the process or the machine stops. Once `put` and `delete` return,
    their changes survive a power cut.
    """

    location: str

    def read(self, name: str, limit: int = READ_LIMIT) -> bytes:
        """Return the whole content, of at most `limit` bytes.

        Raises:
            FileNotFoundError: if it does not exist.
            cache.opening.UnsafeFile: if it is larger.
        """
        ...

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        """Fill writable byte buffers, one after the other, from `offset` on.

        Raises:
            FileNotFoundError: if the name does not exist.
            EOFError: if its content is too short.
        """
        ...

    def pieces(self, name: str, size: int) -> Iterator[memoryview]:
        """Yield the first `size` bytes of a name in pieces; each may be overwritten by the next.

        Raises:
            FileNotFoundError: if the name does not exist.
            EOFError: if its content is too short.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return the size of a name in bytes, or None if it does not exist."""
        ...

    def version(self, name: str) -> Hashable | None:
        """Return a value that changes with a name's content and differs between names; None if reading is expensive.

        Raises:
            FileNotFoundError: if it does not exist.
        """
        ...

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the size of every name with a prefix (empty, or ending in a slash), except hidden names."""
        ...

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        """Store the concatenated pieces (bytes-like) under a name.

        If `pieces` raises, nothing is stored. Producing the pieces must not read from an object store (obstore does one
        thing at a time per thread).

        Raises:
            FileExistsError: if the name exists and must be `new`.
        """
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Remove names; missing ones are ignored."""
        ...

    def claim(self, first: int, last: int) -> Claim:
        """Become the only writer of shards `first` to `last`; raise CacheError if another writer has one of them."""
        ...

    def is_there(self) -> bool:
        """Whether anything is stored at the location."""
        ...

    def free_bytes(self) -> int | None:
        """Return the bytes that can still be stored; None if there is no limit."""
        ...


Location = Path | str | Storage


def open_storage(location: Location) -> Storage:
    """Open the storage at a folder or a URL (such as s3://bucket/caches/one.zarr); a `Storage` is returned unchanged.

    Raises:
        UserError: for a file:// URL that names a host.
    """
    if isinstance(location, Storage):
        return location
    if isinstance(location, str) and location.startswith("file://"):
        location = _local_path(location)
    if isinstance(location, str) and "://" in location:
        from cache.object_storage import ObjectStorage

        return ObjectStorage.from_url(location)
    from cache.local_storage import LocalStorage

    return LocalStorage(Path(location))


def absolute_location(location: str) -> str:
    """Return a location that is valid in any working folder: a URL unchanged, or a folder's absolute path."""
    return location if "://" in location else os.path.abspath(os.path.expanduser(location))


def _local_path(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UserError(
            f"{url} names the host '{parts.netloc}'. Write file:/// and an absolute path, or the path alone."
        )
    return url2pathname(parts.path)
