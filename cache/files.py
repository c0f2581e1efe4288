"""Files that survive a crash: synced writes, the writer's lock, and the check for disk room."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cache.errors import CacheError, UserError
from cache.protocol import LOCK

# For metadata, tables and the file system's own blocks.
ROOM_MARGIN_BYTES = 64 * 2**20


def sync_path(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync_path` for everything under a folder, children first."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync_path(path)
    sync_path(folder)


def replace_file(path: Path, content: bytes, temporary: Path) -> None:
    """Write a file under a temporary name on the same disk, sync it and rename it to `path`."""
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_path(path.parent)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder that is gone afterwards; one that a killed process left behind is replaced."""
    remove_folder(path)
    path.mkdir()
    try:
        yield path
    finally:
        remove_folder(path)


def remove_folder(path: Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    if path.exists():
        shutil.rmtree(path)


def take_lock(folder: Path) -> IO[bytes]:
    """Become the folder's only writer until the returned file is closed (or the process ends).

    The lock file stays, empty: removing it would let two writers lock two different files.

    Raises:
        CacheError: if another writer, in this or another process, has the lock.
    """
    file = (folder / LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise CacheError(
            f"{folder} is being written by another writer, and a cache has one writer at a time: "
            "wait until it has finished, or stop it"
        ) from error
    return file


def check_room(path: Path, needed: int) -> None:
    """Refuse to start what the disk has no room for.

    Args:
        path: where the bytes will go; need not exist yet.
        needed: bytes still to be written.

    Raises:
        UserError: if fewer bytes are free than needed, plus a margin of 64 MiB.
    """
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + ROOM_MARGIN_BYTES:
        raise UserError(
            f"{path} needs {needed + ROOM_MARGIN_BYTES} bytes and its disk has {free} bytes free: "
            "make room, choose another disk, or plan fewer clips, steps or sites"
        )
