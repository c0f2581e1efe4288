"""A cache on object storage (S3, Google Cloud, Azure, or in memory), through obstore."""

import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import MemoryStore, from_url

from cache.errors import CacheBusy, CacheError
from cache.opening import UnsafeFile
from cache.protocol import WRITERS, parse_json
from cache.storage import READ_LIMIT
from cache.wording import numbered

LEASE_SECONDS = 60.0
_CLAIM = re.compile(rf"{re.escape(WRITERS)}/([0-9]{{1,18}})-([0-9]{{1,18}})-[0-9a-f]{{1,64}}")
_CLAIM_LIMIT = 1024
_PART_BYTES = 8 * 2**20
# By default obstore waits three minutes for a server that does not answer. Plain http is the user's own choice.
_CLIENT: Any = {"connect_timeout": "5s", "timeout": "30s", "allow_http": True}
_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}


class ObjectStorage:
    """The `Storage` of a prefix of an object store.

    Objects appear complete and durable once they are put. An object store has no locks, so a writer's claim is an
    object with an expiry time, which the writer renews while it runs.

    Args:
        store: any obstore store, with the cache's prefix.
        location: its name in messages.
        lease_seconds: how long the claim of a killed writer remains valid.
    """

    def __init__(self, store: Any, location: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self.store = store
        self.location = location
        self.lease_seconds = lease_seconds

    @classmethod
    def from_url(cls, url: str) -> "ObjectStorage":
        """Open the storage at a URL; credentials come from the environment, as documented by obstore.

        Raises:
            CacheError: if it is not the URL of an object store.
        """
        try:
            return cls(from_url(url, client_options=_CLIENT, retry_config=_RETRIES), url.rstrip("/"))
        except (BaseError, ValueError) as error:
            raise CacheError(f"{url} is not the URL of an object store: {_first_line(error)}.") from error

    def read(self, name: str, limit: int = READ_LIMIT) -> bytes:
        """See `Storage`."""
        with self._explained(name):
            found = obstore.get(self.store, name)
            if found.meta["size"] > limit:
                raise UnsafeFile(
                    f"{self.location}/{name} must have at most {limit} bytes; it has {found.meta['size']}. It is "
                    "damaged or malicious."
                )
            return bytes(found.bytes())

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        """See `Storage`."""
        length = sum(map(len, buffers))
        if length == 0:
            return
        end = offset + length
        try:
            with self._explained(name):
                content = memoryview(obstore.get_range(self.store, name, start=offset, end=end))
        except CacheError as error:  # such as a range that begins beyond the end
            if (self.size(name) or 0) < end:
                raise EOFError(f"{self.location}/{name} ends before byte {end}") from error
            raise
        if len(content) != length:
            raise EOFError(f"{self.location}/{name} ends before byte {end}")
        for buffer in buffers:
            buffer[:], content = content[: len(buffer)], content[len(buffer) :]

    def pieces(self, name: str, size: int) -> Iterator[memoryview]:
        """See `Storage`."""
        buffer = memoryview(bytearray(min(_PART_BYTES, size)))
        for offset in range(0, size, _PART_BYTES):
            piece = buffer[: min(_PART_BYTES, size - offset)]
            self.read_into(name, offset, piece)
            yield piece

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        try:
            with self._explained(name):
                return int(obstore.head(self.store, name)["size"])
        except FileNotFoundError:
            return None

    def version(self, name: str) -> None:
        """See `Storage`: None, because objects are downloaded in pieces."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Storage`."""
        with self._explained(prefix):
            return {meta["path"]: int(meta["size"]) for meta in self._visible(prefix)}

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        """See `Storage`; large objects are uploaded in parts and appear with the last one."""
        parts = iter(pieces)
        first = _up_to(_PART_BYTES, parts)
        with self._explained(name):
            if new:
                obstore.put(self.store, name, b"".join([first, *parts]), mode="create")
            elif len(first) < _PART_BYTES:
                obstore.put(self.store, name, first)
            else:
                rest = (bytes(piece) for piece in parts)
                obstore.put(self.store, name, itertools.chain([first], rest), chunk_size=_PART_BYTES)

    def delete(self, names: Iterable[str]) -> None:
        """See `Storage`."""
        listed = list(names)
        try:
            with self._explained("/".join(listed)):
                obstore.delete(self.store, listed)
        except FileNotFoundError:  # some stores report missing names; the others are deleted
            return

    def claim(self, first: int, last: int) -> "_Lease":
        """See `Storage`: an object in `.writers/`. Two simultaneous claims may both fail."""
        lease = _Lease(self, f"{WRITERS}/{first}-{last}-{uuid.uuid4().hex}")
        try:
            self._refuse_others(lease.name, first, last)
        except BaseException:
            lease.close()
            raise
        return lease

    def _refuse_others(self, own: str, first: int, last: int) -> None:
        """Raise CacheBusy if another claim than `own` overlaps with these shards; remove expired claims."""
        for name in self._claims():
            if name == own:
                continue
            claim = _CLAIM.fullmatch(name)
            if claim is None:
                continue  # not written by a writer
            other_first, other_last = int(claim[1]), int(claim[2])
            if not (first <= other_last and other_first <= last):
                continue
            remaining = self._expiry(name) - time.time()
            if remaining > 0:
                raise CacheBusy(
                    f"{self.location} is being written by another writer "
                    f"({numbered('shard', other_first, other_last)}). "
                    "A shard can have one writer at a time. Wait until it has finished; if it was killed, its claim "
                    f"ends in {remaining:.0f} s."
                )
            self.delete([name])

    def is_there(self) -> bool:
        """See `Storage`."""
        with self._explained(""):
            return any(True for _ in self._visible(""))

    def free_bytes(self) -> int | None:
        """See `Storage`."""
        return None

    def renew_claim(self, name: str, content: bytes) -> None:
        """Renew a claim if it still exists: one that another writer removed must not reappear."""
        with self._explained(name):
            meta = obstore.head(self.store, name)
            version: Any = {key: meta[key] for key in ("e_tag", "version") if meta[key] is not None}
            obstore.put(self.store, name, content, mode=version)

    def _visible(self, prefix: str) -> Iterator[Any]:
        """Yield the store's metadata of each object whose name is not hidden."""
        for meta in self._listed(prefix):
            if not any(part.startswith(".") for part in meta["path"].split("/")):
                yield meta

    def _listed(self, prefix: str) -> Iterator[Any]:
        """Yield the store's metadata of each object with a prefix; raise UnsafeFile if the store lists others."""
        for batch in obstore.list(self.store, prefix or None):
            for meta in batch:
                parts = meta["path"].split("/")
                if not meta["path"].startswith(prefix) or ".." in parts or "" in parts:
                    raise UnsafeFile(
                        f"{self.location} lists {meta['path']!r}, which is outside it. Do not trust this server."
                    )
                yield meta

    def _claims(self) -> list[str]:
        with self._explained(WRITERS):
            return [meta["path"] for meta in self._listed(f"{WRITERS}/")]

    def _expiry(self, name: str) -> float:
        """Return the Unix time at which a claim expires; 0 if it does not exist."""
        try:
            return float(parse_json(self.read(name, _CLAIM_LIMIT))["expires"])
        except FileNotFoundError:
            return 0.0
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CacheError(
                f"{self.location}/{name} is not a valid claim. Remove it when nobody is writing there."
            ) from error

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Reject names outside the prefix, and turn the store's errors into Python's own or one sentence."""
        if ".." in name.split("/") or name.startswith("/"):
            raise UnsafeFile(f"{name!r} must be a name in {self.location}, without '..'.")
        try:
            yield
        except AlreadyExistsError as error:
            raise FileExistsError(f"{self.location}/{name} already exists") from error
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(f"{self.location}/{name}") from error
        except BaseError as error:
            raise CacheError(
                f"{self.location}/{name} cannot be reached: {_first_line(error)}. Check the address, the network and "
                "the credentials, and run this again."
            ) from error


class _Lease:
    """A claim that is renewed in the background until it is closed or the process ends."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self.name = name
        self._storage = storage
        self._closed = threading.Event()
        storage.put(name, [self._content()])
        self._thread = threading.Thread(target=self._keep, name="cache-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise CacheError if the claim expired and another writer removed it."""
        if self._storage.size(self.name) is None:
            raise CacheError(
                f"The claim on {self._storage.location} was lost to another writer, because it was not renewed for "
                f"{self._storage.lease_seconds:.0f} s. Open the cache for writing again."
            )

    def close(self) -> None:
        """Release the claim."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join()
            self._storage.delete([self.name])

    def _keep(self) -> None:
        while not self._closed.wait(max(self._storage.lease_seconds / 3, 0.01)):
            # If a renewal fails, `check` raises before anything is committed.
            with suppress(CacheError, FileNotFoundError):
                self._storage.renew_claim(self.name, self._content())

    def _content(self) -> bytes:
        return json.dumps({"expires": time.time() + self._storage.lease_seconds}).encode()


def memory_storage() -> ObjectStorage:
    """Return an empty object store in this process's memory."""
    return ObjectStorage(MemoryStore(), "memory://cache")


def _up_to(size: int, pieces: Iterator[Any]) -> bytes:
    """Join the first pieces until they have at least `size` bytes, or all of them."""
    first = bytearray()
    for piece in pieces:
        first += piece
        if len(first) >= size:
            break
    return bytes(first)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0].rstrip(".")
