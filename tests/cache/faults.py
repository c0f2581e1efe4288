"""Tools that break a cache on purpose (kills, power cuts, failing disks, flipped bits) and survey what is left."""

import errno
import os
import random
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import Float

from cache import ActivationCache, CacheError, CachePlan, CacheWriter, local_storage
from cache.object_storage import ObjectStorage
from cache.rounding import TORCH
from cache.storage import READ_LIMIT, Claim, Location, Storage
from tests.cache.helpers import make_clips, make_values, shard_values

Result = TypeVar("Result")
Values = Float[np.ndarray, "clip step pass token channel"]
Moment = Literal["before", "halfway", "after"]


class Killed(BaseException):
    """Raised where the process ends as far as the storage can tell."""


# What a reader finds


@dataclass(frozen=True)
class Survey:
    """Shards as a reader finds them, and tables that differ from those written.

    Attributes:
        committed: named by the manifest.
        intact: read back as they were written.
        wrong: read back as other numbers, without an error.
        wrong_tables: read back as other tables, without an error.
    """

    committed: frozenset[int] = frozenset()
    intact: frozenset[int] = frozenset()
    wrong: frozenset[int] = frozenset()
    wrong_tables: frozenset[str] = frozenset()

    def faults(self, acknowledged: Collection[int], in_flight: int = 1) -> list[str]:
        """Check that nothing was lost, given the shards for which `write_shard` had returned."""
        lost = set(acknowledged) - self.intact
        unreadable = self.committed - self.intact
        surplus = self.committed - set(acknowledged)
        return [
            *(f"shard {shard} was written and is lost" for shard in sorted(lost)),
            *(f"shard {shard} is in the manifest and cannot be read" for shard in sorted(unreadable)),
            *(f"shard {shard} has wrong numbers" for shard in sorted(self.wrong)),
            *(f"{name} is wrong" for name in sorted(self.wrong_tables)),
            *([f"shards {sorted(surplus)} are there"] if len(surplus) > in_flight else []),
        ]


def survey(location: Location, plan: CachePlan) -> Survey:
    """Open a cache and read all of it; a cache that cannot be opened has no shards."""
    try:
        cache = ActivationCache(location, allow_partial=True)
    except CacheError:
        return Survey()
    stored = {site: _as_stored(plan, site) for site in plan.sites}
    read = {shard: _is_right(cache, shard, stored) for shard in range(plan.n_shards)}
    return Survey(
        committed=frozenset(cache.manifest.entries),
        intact=frozenset(shard for shard, is_right in read.items() if is_right),
        wrong=frozenset(shard for shard, is_right in read.items() if is_right is False),
        wrong_tables=frozenset(_wrong_tables(cache, plan)),
    )


def wrong_tables(location: Location, plan: CachePlan) -> frozenset[str]:
    """Tables that read back as others than those written, without an error."""
    with suppress(CacheError):
        return frozenset(_wrong_tables(ActivationCache(location, allow_partial=True), plan))
    return frozenset()


def _as_stored(plan: CachePlan, site: str) -> Values:
    """The values that reading a site must return."""
    return torch.from_numpy(make_values(plan, site)).to(TORCH[plan.dtypes[site]]).float().numpy()


def _is_right(cache: ActivationCache, shard: int, stored: dict[str, Values]) -> bool | None:
    """Whether a shard has the numbers that were written; None if it cannot be read."""
    first, last = cache.plan.shard_clips(shard)
    try:
        read = {site: cache.read(site, clips=range(first, last + 1)) for site in cache.sites}
    except CacheError:
        return None
    return all(np.array_equal(read[site], stored[site][first : last + 1]) for site in cache.sites)


def _wrong_tables(cache: ActivationCache, plan: CachePlan) -> Iterator[str]:
    calls = pd.DataFrame({"step": plan.steps, "sigma": plan.sigmas})
    for name, given in (("clips", make_clips(plan)), ("calls", calls)):
        with suppress(CacheError):
            if not getattr(cache, name).equals(given):
                yield name


def write_missing(
    location: Location, plan: CachePlan, written: Callable[[int], Any], shards: tuple[int, int] | None = None
) -> None:
    """Write the missing shards, and call `written` after each."""
    with CacheWriter(location, plan, make_clips(plan), shards) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, shard_values(plan, shard))
            written(shard)


# A storage that stops


class Interrupted:
    """A storage that stops at its n-th operation, as seen by a writer.

    After `Killed`, every later operation raises `Killed`, too. Any other failure happens once.

    Args:
        inner: the storage itself.
        at: number of the operation, from 1; 0 only counts.
        moment: "before" the operation, "after" it, or "halfway": after the first half of the first piece of a `put`
            (other operations then succeed).
        failure: the error to raise.

    Attributes:
        log: the operations, in order.
    """

    def __init__(
        self, inner: Storage, at: int = 0, moment: Moment = "before", failure: BaseException | None = None
    ) -> None:
        self.location = inner.location
        self.log: list[str] = []
        self._inner = inner
        self._at = at
        self._moment = moment
        self._failure = failure or Killed()
        self._is_dead = False
        self._claims: list[Claim] = []
        self._lock = threading.Lock()

    def read(self, name: str, limit: int = READ_LIMIT) -> bytes:
        """See `Storage`."""
        return self._operation(f"read {name}", lambda: self._inner.read(name, limit))

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        """See `Storage`."""
        self._operation(f"read_into {name}", lambda: self._inner.read_into(name, offset, *buffers))

    def pieces(self, name: str, size: int) -> Iterator[memoryview]:
        """See `Storage`."""
        return iter(
            self._operation(
                f"pieces {name}",
                lambda: [memoryview(bytes(piece)) for piece in self._inner.pieces(name, size)],
            )
        )

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        return self._operation(f"size {name}", lambda: self._inner.size(name))

    def version(self, name: str) -> Any:
        """See `Storage`; this operation never fails."""
        return self._inner.version(name)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Storage`."""
        return self._operation(f"sizes {prefix}", lambda: self._inner.sizes(prefix))

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        """See `Storage`."""
        number = self._begin(f"put {name}")
        is_halved = number == self._at and self._moment == "halfway"
        self._inner.put(name, self._half(pieces) if is_halved else pieces, new)
        self._end(number)

    def delete(self, names: Iterable[str]) -> None:
        """See `Storage`."""
        listed = sorted(names)
        self._operation(f"delete {' '.join(listed)}", lambda: self._inner.delete(listed))

    def claim(self, first: int, last: int) -> Claim:
        """See `Storage`."""

        def make() -> Claim:
            self._claims.append(self._inner.claim(first, last))
            return self._claims[-1]

        return _InterruptedClaim(self, self._operation("claim", make))

    def is_there(self) -> bool:
        """See `Storage`."""
        return self._operation("is_there", self._inner.is_there)

    def free_bytes(self) -> int | None:
        """See `Storage`."""
        return self._operation("free_bytes", self._inner.free_bytes)

    def bury(self) -> None:
        """Treat a dead writer's claims as the end of a process does: no longer renewed, no lock held."""
        for claim in self._claims:
            forget(claim)

    def _operation(self, name: str, action: Callable[[], Result]) -> Result:
        number = self._begin(name)
        try:
            return action()
        finally:
            self._end(number)

    def _begin(self, name: str) -> int:
        with self._lock:
            if self._is_dead:
                raise Killed
            self.log.append(name)
            number = len(self.log)
            if number == self._at and self._moment == "before":
                self._fail()
            return number

    def _end(self, number: int) -> None:
        with self._lock:
            if number == self._at and self._moment == "after":
                self._fail()
            if self._is_dead:
                raise Killed

    def _half(self, pieces: Iterable[Any]) -> Iterator[memoryview]:
        for piece in pieces:
            content = memoryview(piece).cast("B")
            yield content[: len(content) // 2]
            self._fail()

    def _fail(self) -> None:
        self._is_dead = isinstance(self._failure, Killed)
        raise self._failure


class _InterruptedClaim:
    """The claim of a writer that may be dead."""

    def __init__(self, storage: Interrupted, claim: Claim) -> None:
        self._storage = storage
        self._claim = claim

    def check(self) -> None:
        """See `Claim`."""
        self._storage._operation("check", self._claim.check)

    def close(self) -> None:
        """See `Claim`."""
        self._storage._operation("close", self._claim.close)


class Meddled(Interrupted):
    """A storage with which something else happens just before its n-th operation."""

    def __init__(self, inner: Storage, at: int, meddle: Callable[[], Any]) -> None:
        super().__init__(inner)
        self._meddling = (at, meddle)

    def _begin(self, name: str) -> int:
        number = super()._begin(name)
        at, meddle = self._meddling
        if number == at:
            meddle()
        return number


def forget(claim: Any) -> None:
    """Make the holder of a claim dead: its claim is neither renewed nor unlocked, and its files stay."""
    if hasattr(claim, "_thread"):
        claim._closed.set()
        claim._thread.join()
    else:
        claim._file.close()


def expire_claims(storage: Storage) -> None:
    """Expire the claims of dead writers in an object store."""
    if isinstance(storage, ObjectStorage):
        for name in storage._claims():
            storage.put(name, [b'{"expires":0}'])


# A disk that loses power


@dataclass
class _File:
    """Content of a file, now and at its last sync."""

    content: bytes = b""
    synced: bytes | None = None


@dataclass
class _Folder:
    """Names in a folder, now, at its last sync, and in between (oldest first; None: removed)."""

    names: dict[str, "_Node"] = field(default_factory=dict)
    durable: dict[str, "_Node"] = field(default_factory=dict)
    pending: list[tuple[str, "_Node | None"]] = field(default_factory=list)


_Node = _File | _Folder
Image = dict[str, bytes | None]


class RecordedDisk:
    """Record what this process does in a folder, to tell what a power cut would leave.

    Only file contents and folder names from their last sync are sure to be on the disk. Any part of later changes may
    be there, too: a name's later changes up to any of them, a file's later content cut anywhere or ending in zeros.

    Attributes:
        events: the operations, in order.
        cuts: after each event, the images that a power cut may leave, with the shards acknowledged until then.
        acknowledged: the shards for which `write_shard` has returned; to be kept by the test.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, seed: int = 0) -> None:
        self.events: list[str] = []
        self.cuts: list[tuple[frozenset[int], Image]] = []
        self.acknowledged: set[int] = set()
        self._root = root
        self._tree = _Folder()
        self._nodes: dict[int, _Node] = {}
        self._random = random.Random(seed)
        self._lock = threading.RLock()
        self._follow()
        self._sync_all(self._tree)
        for name in ("mkdir", "replace", "unlink", "rmdir"):
            patch.setattr(os, name, self._recorded(name, getattr(os, name)))
        patch.setattr(os, "fsync", self._fsync)

    def images(self) -> list[Image]:
        """Images that a power cut may leave now: nothing unsynced, all of it, and random parts of it."""
        return [
            self._image(choose) for choose in (_none_of, _all_of, self._random.randint, self._random.randint)
        ]

    def _recorded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, *args: Any, **kwargs: Any) -> Any:
            with self._lock:
                full = whole_path(path, kwargs)
                result = function(path, *args, **kwargs)
                self._note(f"{name} {self._name(full)}")
                return result

        return wrapper

    def _fsync(self, descriptor: int) -> None:
        with self._lock:
            self._follow()
            node = self._nodes[os.fstat(descriptor).st_ino]
            if isinstance(node, _File):
                node.synced = node.content
            else:
                node.durable, node.pending = dict(node.names), []
            self._note(f"sync {self._name(os.readlink(f'/proc/self/fd/{descriptor}'))}")

    def _note(self, event: str) -> None:
        self._follow()
        self.events.append(event)
        acknowledged = frozenset(self.acknowledged)
        for image in self.images():
            if (acknowledged, image) not in self.cuts[-8:]:
                self.cuts.append((acknowledged, image))

    def _name(self, path: Any) -> str:
        path = Path(path)
        return str(path.relative_to(self._root) if path.is_relative_to(self._root) else path)

    def _follow(self) -> None:
        """Record the current contents of the folder."""
        seen: dict[int, _Node] = {self._root.stat().st_ino: self._tree}
        self._follow_folder(self._root, self._tree, seen)
        self._nodes = seen

    def _follow_folder(self, path: Path, folder: _Folder, seen: dict[int, _Node]) -> None:
        names: dict[str, _Node] = {}
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            number, is_folder = entry.inode(), entry.is_dir()
            node = self._nodes.get(number)
            if node is None or isinstance(node, _Folder) != is_folder:
                node = _Folder() if is_folder else _File()
            names[entry.name] = seen[number] = node
            if isinstance(node, _Folder):
                self._follow_folder(Path(entry.path), node, seen)
            else:
                node.content = Path(entry.path).read_bytes()
        for name in sorted(names.keys() | folder.names.keys()):
            if names.get(name) is not folder.names.get(name):
                folder.pending.append((name, names.get(name)))
        folder.names = names

    def _sync_all(self, folder: _Folder) -> None:
        folder.durable, folder.pending = dict(folder.names), []
        for node in folder.names.values():
            if isinstance(node, _Folder):
                self._sync_all(node)
            else:
                node.synced = node.content

    def _image(self, choose: Callable[[int, int], int]) -> Image:
        image: Image = {}
        self._lay_out(self._tree, "", choose, image)
        return image

    def _lay_out(self, folder: _Folder, prefix: str, choose: Callable[[int, int], int], image: Image) -> None:
        names = dict(folder.durable)
        changes: dict[str, list[_Node | None]] = {}
        for name, node in folder.pending:
            changes.setdefault(name, []).append(node)
        for name, nodes in changes.items():
            kept = choose(0, len(nodes))
            node = nodes[kept - 1] if kept else names.get(name)
            names.pop(name, None)
            if node is not None:
                names[name] = node
        for name, node in names.items():
            if isinstance(node, _Folder):
                image[prefix + name] = None
                self._lay_out(node, f"{prefix}{name}/", choose, image)
            else:
                image[prefix + name] = _left_of(node, choose)


def _left_of(file: _File, choose: Callable[[int, int], int]) -> bytes:
    if file.synced is not None and file.synced == file.content:
        return file.synced
    kept = choose(0, len(file.content))
    is_zeroed = choose(0, 1)
    return file.content[:kept] + bytes(len(file.content) - kept) * is_zeroed


def _none_of(first: int, last: int) -> int:
    return first


def _all_of(first: int, last: int) -> int:
    return last


def restore(image: Image, folder: Path) -> None:
    """Create a folder from an image."""
    folder.mkdir()
    for name, content in image.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


# A disk that fails

WRITES = frozenset({"open", "write", "fsync", "replace", "mkdir"})
CHANGES = WRITES | {"unlink", "rmdir"}
# Calls that fail with each: a full disk can still remove names; a read-only disk changes nothing.
FAILING = {errno.ENOSPC: WRITES, errno.EDQUOT: WRITES, errno.EIO: CHANGES, errno.EROFS: CHANGES}


class FailingDisk:
    """Make this process's calls that change a folder fail from the n-th on, or only the n-th.

    Args:
        folder: the folder in which calls fail.
        error: the errno of the failing calls; it determines which calls fail.
        at: number of the first call that fails, from 1; 0 only counts.
        is_lasting: whether all later calls fail, too.

    Attributes:
        calls: the number of calls.
    """

    def __init__(self, folder: Path, error: int, at: int, is_lasting: bool = True) -> None:
        self.calls = 0
        self._folder = folder
        self._error = error
        self._at = at
        self._is_lasting = is_lasting

    @contextmanager
    def failing(self) -> Iterator["FailingDisk"]:
        """Within this block."""
        with pytest.MonkeyPatch.context() as patch:
            for name in FAILING[self._error] - {"open", "write"}:
                patch.setattr(os, name, self._guarded(getattr(os, name)))
            patch.setattr(os, "open", self._guarded_open(os.open))
            patch.setattr(local_storage, "_write_all", self._guarded_write(local_storage._write_all))
            yield self

    def _call(self, path: Any) -> None:
        self.calls += 1
        if self._at and (self.calls == self._at or (self._is_lasting and self.calls > self._at)):
            raise OSError(self._error, os.strerror(self._error), str(path))

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(target: Any, *args: Any, **kwargs: Any) -> Any:
            self._call(target)
            return function(target, *args, **kwargs)

        return wrapper

    def _guarded_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
            file = whole_path(path, kwargs)
            changes = flags & os.O_CREAT and file.is_relative_to(self._folder)
            if changes and (self._error != errno.ENOSPC or not file.exists()):
                self._call(file)
            return function(path, flags, *args, **kwargs)

        return wrapper

    def _guarded_write(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(file: Any, piece: memoryview) -> None:
            function(file, piece[: len(piece) // 2])
            self._call(file.name)
            function(file, piece[len(piece) // 2 :])

        return wrapper


def whole_path(path: Any, arguments: dict[str, Any]) -> Path:
    """The path passed to a function of `os`, possibly relative to the descriptor of a folder."""
    folder = arguments.get("dir_fd", arguments.get("src_dir_fd"))
    return Path(path) if folder is None else Path(os.readlink(f"/proc/self/fd/{folder}"), path)


# A disk that corrupts data


def flip(content: bytes, place: int, bit: int) -> bytes:
    """The same bytes with one bit flipped."""
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
