"""Where a cache lies: a folder of this machine or a prefix of an object store, behind one small protocol."""

import os
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cache.errors import UserError

# What `read` gives at most: the manifest of the largest cache is far smaller.
READ_LIMIT = 2**28


@runtime_checkable
class Claim(Protocol):
    """The right to write some shards, held until it is closed or the process ends."""

    def check(self) -> None:
        """Raise CacheError if the claim was lost to another writer."""
        ...

    def close(self) -> None:
        """Give the right back."""
        ...


@runtime_checkable
class Storage(Protocol):
    """Named byte strings under one location; names have forward slashes.

    A name appears whole, or not at all, whenever the process or the machine stops. What `put` and `delete` have
    done when they return survives a power cut.
    """

    location: str

    def read(self, name: str, limit: int = READ_LIMIT) -> bytes:
        """The whole content, of at most `limit` bytes.

        Raises:
            FileNotFoundError: if it is not there. cache.opening.UnsafeFile: if it is larger.
        """
        ...

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        """Fill writable buffers of bytes, one after the other, from `offset` on.

        Raises FileNotFoundError, and EOFError if there is less.
        """
        ...

    def pieces(self, name: str, size: int) -> Iterator[memoryview]:
        """The first `size` bytes of a name, one piece after the other; each may be overwritten by the next.

        Raises FileNotFoundError, and EOFError if there is less.
        """
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a name, or None if it is not there."""
        ...

    def version(self, name: str) -> Hashable | None:
        """What changes when a name's content does, and differs between all names; None where reading all is dear.

        Raises:
            FileNotFoundError: if it is not there.
        """
        ...

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every name that starts with a prefix (empty, or ending in a slash), with its bytes; no hidden names."""
        ...

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        """Store the pieces (bytes-like), one after the other, under a name.

        Raises FileExistsError if the name is there and must be `new`. When `pieces` raises, nothing is stored. Making
        the pieces must not read from an object store (obstore does one thing at a time in a thread).
        """
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Remove names; those that are not there do not matter."""
        ...

    def claim(self, first: int, last: int) -> Claim:
        """Become the only writer of shards `first` to `last`; raises CacheError if another writer has one of them."""
        ...

    def is_there(self) -> bool:
        """Whether anything is at the location."""
        ...

    def free_bytes(self) -> int | None:
        """Bytes that can still be stored; None where nothing limits them."""
        ...


Location = Path | str | Storage


def open_storage(location: Location) -> Storage:
    """The storage at a folder or a URL (such as s3://bucket/caches/one.zarr); a storage is passed through.

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
    """A cache's location that means the same in any working folder: a URL as it is, of a folder its absolute path."""
    return location if "://" in location else os.path.abspath(os.path.expanduser(location))


def _local_path(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UserError(
            f"{url} names the host '{parts.netloc}': write file:/// and an absolute path, or the path alone"
        )
    return url2pathname(parts.path)
