"""A cache in a folder: synced writes, renames, and locks that the kernel releases when a process dies."""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cache import opening
from cache.errors import CacheBusy, CacheError
from cache.opening import UnsafeFile
from cache.protocol import LOCK, STAGING, WRITERS
from cache.storage import READ_LIMIT
from cache.wording import numbered

# Small enough to stay in the CPU cache until its checksum is computed.
_PIECE_BYTES = 2**20
_CLAIM = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class LocalStorage:
    """The `Storage` of a folder. Links in it raise UnsafeFile (see `cache.opening`); `claim` checks all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.location = str(folder)
        file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
        if file is not None:
            raise CacheError(f"{file} is a file. Give a folder.")

    def read(self, name: str, limit: int = READ_LIMIT) -> bytes:
        """See `Storage`."""
        return opening.read_file(self.folder, name, limit)

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        """See `Storage`."""
        left = [buffer for buffer in buffers if len(buffer)]
        with opening.open_file(self.folder, name) as file:
            while left:
                count = os.preadv(file.fileno(), left, offset)
                if count == 0:
                    raise EOFError(f"{self.folder / name} ends before byte {offset + sum(map(len, left))}")
                offset += count
                left = _without_first(left, count)

    def pieces(self, name: str, size: int) -> Iterator[memoryview]:
        """See `Storage`."""
        buffer = memoryview(bytearray(min(_PIECE_BYTES, size)))
        with opening.open_file(self.folder, name) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while size:
                count = os.readv(file.fileno(), [buffer[:size]])
                if count == 0:
                    raise EOFError(f"{self.folder / name} ends {size} bytes too early")
                size -= count
                yield buffer[:count]

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        return opening.file_size(self.folder, name)

    def version(self, name: str) -> Hashable:
        """See `Storage`: which file it is, its size, and when it and its content were changed."""
        with opening.open_file(self.folder, name) as file:
            found = os.fstat(file.fileno())
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Storage`."""
        return opening.list_files(self.folder, prefix)

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        """See `Storage`: written in the staging folder, synced, renamed, and the folder synced."""
        # A unique name: writers of different shards all store the metadata and the manifest.
        staged = f"{STAGING}/{name.replace('/', '~')}~{uuid.uuid4().hex}"
        make_folder(self.folder)
        opening.make_folder(self.folder, STAGING)
        try:
            with opening.create_file(self.folder, staged) as file:
                for piece in pieces:
                    _write_all(file, memoryview(piece).cast("B"))
                os.fsync(file.fileno())
            with self._locked():  # another writer may be removing the folder that this file goes to
                if new and self.size(name) is not None:
                    raise FileExistsError(f"{self.folder / name} already exists")
                opening.make_folder(self.folder, Path(name).parent)
                opening.move_file(self.folder, staged, name)
        finally:
            opening.remove_file(self.folder, staged)

    def delete(self, names: Iterable[str]) -> None:
        """See `Storage`; folders that become empty are removed too."""
        listed = list(names)
        with self._locked():
            for name in listed:
                opening.remove_file(self.folder, name)
            for folder in {Path(name).parent for name in listed}:
                self._sync_or_remove(folder)

    def claim(self, first: int, last: int) -> "_LocalClaim":
        """See `Storage`: a locked file in `.writers/`. The file of a dead process is not locked, and is removed.

        Raises:
            UnsafeFile: if the folder contains a link or anything else that is not a regular file; nothing is changed.
        """
        opening.list_files(self.folder, hidden=True)
        make_folder(self.folder)
        opening.make_folder(self.folder, WRITERS)
        with self._locked():
            opening.make_folder(self.folder, WRITERS)  # a writer that closed may have removed it
            others = self._living_claims()
            for other_first, other_last in others:
                if first <= other_last and other_first <= last:
                    raise CacheBusy(
                        f"{self.folder} is being written by another writer "
                        f"({numbered('shard', other_first, other_last)}). "
                        "A shard can have one writer at a time. Wait until it has finished, or stop it."
                    )
            if not others:
                self._tidy()
            file = opening.open_lock(self.folder, f"{WRITERS}/{first}-{last}")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _LocalClaim(self, file, f"{first}-{last}")

    def is_there(self) -> bool:
        """See `Storage`."""
        return self.folder.is_dir() and any(not path.name.startswith(".") for path in self.folder.iterdir())

    def free_bytes(self) -> int | None:
        """See `Storage`."""
        folder = self.folder.absolute()
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        return shutil.disk_usage(existing).free

    def release(self, claim_file: IO[bytes], name: str) -> None:
        """Remove a claim's file; the last writer also removes the files that writers share.

        If the disk fails they stay, but have no effect once the file is closed.
        """
        with claim_file, suppress(OSError), self._locked():
            opening.remove_file(self.folder, f"{WRITERS}/{name}")
            claim_file.close()
            if not self._names_in(WRITERS):
                opening.remove_folder(self.folder, WRITERS)
                self._tidy()

    def _tidy(self) -> None:
        """Remove what dead writers left behind: staged files and empty folders."""
        opening.remove_folder(self.folder, STAGING)
        with opening.open_folder(self.folder) as folder, os.scandir(folder) as entries:
            for entry in entries:
                is_own = entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                if is_own and not self._names_in(entry.name):
                    os.rmdir(entry.name, dir_fd=folder)

    def _living_claims(self) -> list[tuple[int, int]]:
        """Return the shards (first, last) that writers currently hold; remove the claims of dead ones."""
        living = []
        for name in self._names_in(WRITERS):
            with opening.open_lock(self.folder, f"{WRITERS}/{name}") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    opening.remove_file(self.folder, f"{WRITERS}/{name}")
                except BlockingIOError:
                    claim = _CLAIM.fullmatch(name)
                    if claim is None:
                        raise UnsafeFile(
                            f"{self.folder / WRITERS / name} is locked but does not belong to a writer. End the "
                            "program that has it open, and remove it."
                        ) from None
                    living.append((int(claim[1]), int(claim[2])))
        return living

    def _names_in(self, name: str) -> list[str]:
        """Return the names in a folder of the cache."""
        with opening.open_folder(self.folder, name) as folder:
            return os.listdir(folder)

    def _sync_or_remove(self, name: Path) -> None:
        """Remove a folder of the cache if it is empty, and sync removals to disk."""
        parent = name.parent
        with suppress(FileNotFoundError), opening.open_folder(self.folder, name) as folder:
            if name == parent or os.listdir(folder):
                os.fsync(folder)
                return
            with opening.open_folder(self.folder, parent) as outer:
                os.rmdir(name.name, dir_fd=outer)
                os.fsync(outer)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock renaming, removing and claiming across processes, for a short time."""
        with opening.open_lock(self.folder, LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _LocalClaim:
    """A locked file; closing it, or the end of the process, releases the claim."""

    def __init__(self, storage: LocalStorage, file: IO[bytes], name: str) -> None:
        self._storage = storage
        self._file = file
        self._name = name

    def check(self) -> None:
        """Do nothing: a local claim cannot be lost."""

    def close(self) -> None:
        """Release the claim."""
        if not self._file.closed:
            self._storage.release(self._file, self._name)


def sync_path(path: Path) -> None:
    """Sync a folder's entries, or a file's content, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its parents so that they survive a power cut."""
    if not path.is_dir():
        make_folder(path.absolute().parent)
        opening.create_folder(path)
        sync_path(path.absolute().parent)


def _without_first(buffers: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of some buffers after their first `count` bytes."""
    while buffers and count >= len(buffers[0]):
        count -= len(buffers[0])
        buffers = buffers[1:]
    return [buffers[0][count:], *buffers[1:]] if buffers else []


def _write_all(file: IO[bytes], piece: memoryview) -> None:
    """Write all of `piece`: a raw file may write less than it is given."""
    while len(piece):
        piece = piece[file.write(piece) :]
