"""A cache in a folder: synced writes, renames, and locks that the kernel releases when a process dies."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cache.errors import CacheError
from cache.protocol import LOCK, STAGING, WRITERS


class LocalStorage:
    """The `Storage` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.location = str(folder)
        file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
        if file is not None:
            raise CacheError(f"{file} is a file: give a folder for the cache")

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        return (self.folder / name).read_bytes()

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        """See `Storage`."""
        left = [buffer for buffer in buffers if len(buffer)]
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        try:
            while left:
                count = os.preadv(descriptor, left, offset)
                if count == 0:
                    raise EOFError(f"{self.folder / name} ends before byte {offset + sum(map(len, left))}")
                offset += count
                left = _without_first(left, count)
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Storage`."""
        found = {}
        for parent, folders, files in os.walk(self.folder / prefix):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = Path(parent, name)
                if not name.startswith("."):
                    with suppress(FileNotFoundError):  # removed by a writer meanwhile
                        found[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        return found

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        """See `Storage`: written in the staging folder, synced, renamed, and the folder synced."""
        # A name of its own: writers of different shards store the metadata and the manifest alike.
        staged = self.folder / STAGING / f"{name.replace('/', '~')}~{uuid.uuid4().hex}"
        make_folder(staged.parent)
        try:
            with staged.open("wb", buffering=0) as file:
                for piece in pieces:
                    _write_all(file, memoryview(piece).cast("B"))
                os.fsync(file.fileno())
            with self._locked():  # another writer may be removing the folder that this file goes to
                if new and (self.folder / name).exists():
                    raise FileExistsError(f"{self.folder / name} is there already")
                make_folder((self.folder / name).parent)
                os.replace(staged, self.folder / name)
                sync_path((self.folder / name).parent)
        finally:
            staged.unlink(missing_ok=True)

    def delete(self, names: Iterable[str]) -> None:
        """See `Storage`; a folder that becomes empty goes, too."""
        paths = [self.folder / name for name in names]
        with self._locked():
            for path in paths:
                path.unlink(missing_ok=True)
            for folder in {path.parent for path in paths if path.parent.is_dir()}:
                if folder != self.folder and not any(folder.iterdir()):
                    folder.rmdir()
                    folder = folder.parent
                sync_path(folder)

    def claim(self, first: int, last: int) -> "_LocalClaim":
        """See `Storage`: a locked file in `.writers/`; that of a dead process is not locked, and is removed."""
        make_folder(self.folder / WRITERS)
        with self._locked():
            make_folder(self.folder / WRITERS)  # a writer that closed may have removed it
            others = self._living_claims()
            for other_first, other_last in others:
                if first <= other_last and other_first <= last:
                    raise CacheError(
                        f"{self.folder} is being written by another writer (shards {other_first} to {other_last}), "
                        "and a shard has one writer at a time: wait until it has finished, or stop it"
                    )
            if not others:
                self._tidy()
            file = (self.folder / WRITERS / f"{first}-{last}").open("ab")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _LocalClaim(self, file)

    def is_there(self) -> bool:
        """See `Storage`."""
        return self.folder.is_dir() and any(not path.name.startswith(".") for path in self.folder.iterdir())

    def free_bytes(self) -> int | None:
        """See `Storage`."""
        folder = self.folder.absolute()
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        return shutil.disk_usage(existing).free

    def release(self, claim_file: IO[bytes]) -> None:
        """Remove a claim's file; the last writer to leave removes what writers share.

        On a disk that fails they stay: they mean nothing once the file is closed.
        """
        with claim_file, suppress(OSError), self._locked():
            Path(claim_file.name).unlink(missing_ok=True)
            claim_file.close()
            if not any((self.folder / WRITERS).iterdir()):
                remove_folder(self.folder / WRITERS)
                self._tidy()

    def _tidy(self) -> None:
        """Remove what dead writers left: staged files, and folders that were emptied and should have gone."""
        remove_folder(self.folder / STAGING)
        for path in self.folder.iterdir():
            if path.is_dir() and not path.name.startswith(".") and not any(path.iterdir()):
                path.rmdir()

    def _living_claims(self) -> list[tuple[int, int]]:
        """Shards (first, last) that writers hold now; removes the files of dead ones."""
        living = []
        for path in (self.folder / WRITERS).iterdir():
            with path.open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                except BlockingIOError:
                    first, last = path.name.split("-")
                    living.append((int(first), int(last)))
        return living

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one, in any process, who renames, removes or claims; held for moments only."""
        with (self.folder / LOCK).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _LocalClaim:
    """A locked file; closing it, or the end of the process, gives the claim back."""

    def __init__(self, storage: LocalStorage, file: IO[bytes]) -> None:
        self._storage = storage
        self._file = file

    def check(self) -> None:
        """Nobody can take a local claim away."""

    def close(self) -> None:
        """Give the claim back."""
        if not self._file.closed:
            self._storage.release(self._file)


def sync_path(path: Path) -> None:
    """Wait until a folder's list of names, or a file's content, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, so that they survive a power cut."""
    if not path.is_dir():
        make_folder(path.absolute().parent)
        path.mkdir(exist_ok=True)
        sync_path(path.absolute().parent)


def remove_folder(path: Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    if path.exists():
        shutil.rmtree(path)


def _without_first(buffers: list[memoryview], count: int) -> list[memoryview]:
    """What is left of some buffers after their first `count` bytes."""
    while buffers and count >= len(buffers[0]):
        count -= len(buffers[0])
        buffers = buffers[1:]
    return [buffers[0][count:], *buffers[1:]] if buffers else []


def _write_all(file: IO[bytes], piece: memoryview) -> None:
    """A raw file may write less than it is given."""
    while len(piece):
        piece = piece[file.write(piece) :]
