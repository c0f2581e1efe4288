"""Open only files inside a given folder, never what a link in it points to.

Studies and caches are shared, so a folder may come from an attacker. Every function here takes a `root`, a folder whose
own path is trusted (it may contain its owner's links), and the `name` of something inside it, with forward slashes.
Below the root:

- names that are absolute or contain `..` are rejected;
- links are not followed anywhere in a name. Each part is opened separately in the folder before it (`openat` with
  `O_NOFOLLOW`), so that it cannot be swapped in the meantime;
- named pipes, devices and sockets, which could block forever, are rejected;
- files larger than the reader can use are rejected before they are read;
- new files have unguessable names, and are created only where nothing exists.
"""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cache.errors import UserError
from cache.protocol import parse_json

MAX_DEPTH = 32
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe waits for its other end.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARTIAL = re.compile(r"\.part-[0-9a-f]{32}(\..*)?")


class UnsafeFile(UserError):
    """Something that is not safe to open: a link, a pipe, a path outside its folder, or a file that is too large."""


def open_file(root: Path, name: str | Path, limit: int | None = None) -> BufferedReader:
    """Open a file inside `root` for reading bytes.

    Args:
        root: the folder.
        name: name of the file in it.
        limit: largest size in bytes; None if the file is read in pieces.

    Raises:
        FileNotFoundError: if it does not exist.
        UnsafeFile: if it is not a regular file, its path contains a link, or it is too large.
    """
    return os.fdopen(_open(root, name, os.O_RDONLY, limit), "rb")


def read_file(root: Path, name: str | Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes; raise as `open_file` does."""
    with open_file(root, name, limit) as file:
        # Reading up to the limit would allocate all of it; reading to the end would include what is appended meanwhile.
        return file.read(min(limit, os.fstat(file.fileno()).st_size))


def read_json(root: Path, name: str | Path, limit: int) -> Any:
    """Read a JSON file of at most `limit` bytes.

    Raises:
        ValueError: if it is not JSON (see `cache.protocol.parse_json`).
        FileNotFoundError, UnsafeFile: as `open_file`.
    """
    return parse_json(read_file(root, name, limit))


def file_size(root: Path, name: str | Path) -> int | None:
    """Return the size of a file inside `root` in bytes, or None if it does not exist.

    Raises:
        UnsafeFile: if it is not a regular file, or its path contains a link.
    """
    try:
        with _parent(root, name) as (parent, last), _named(root / name):
            found = os.stat(last, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    _refuse_other_than(stat.S_ISREG, found, root, name)
    return found.st_size


def checked_path(root: Path, name: str | Path) -> Path:
    """Return the path of a file inside `root`, for libraries that open files by path only.

    `open_file` is safer: here the file could be replaced by a link between the check and the opening.

    Raises:
        FileNotFoundError: if it does not exist.
        UnsafeFile: as `open_file`.
    """
    if file_size(root, name) is None:
        raise FileNotFoundError(root / name)
    return root / name


def checked_folder(root: Path, name: str | Path) -> Path:
    """Return the path of a folder inside `root`, which need not exist yet.

    Raises:
        UnsafeFile: if it is something else than a folder, or its path contains a link.
    """
    with suppress(FileNotFoundError, NotADirectoryError), open_folder(root, name):
        pass  # a root that is not a folder fails when it is used
    return root / name


def list_files(root: Path, name: str | Path = "", hidden: bool = False) -> dict[str, int]:
    """List all files in a folder inside `root`, recursively, with their size in bytes.

    Args:
        root: the folder.
        name: name of the folder in it; by default all of `root`.
        hidden: whether to include names that begin with a dot.

    Returns:
        Sizes by name relative to `root`; empty if the folder does not exist.

    Raises:
        UnsafeFile: if there is anything but files and folders, or folders are nested more than `MAX_DEPTH` deep.
    """
    prefix = "".join(f"{part}/" for part in _parts(root, name))
    try:
        with open_folder(root, name) as folder:
            return dict(_walk(root, folder, prefix, hidden))
    except FileNotFoundError:
        return {}


def create_folder(folder: Path) -> None:
    """Create a folder and its parents, wherever a user wants it, unless it exists.

    Raises:
        UserError: where the system has no room for folders, such as below /proc.
        NotADirectoryError: where something else is in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error
    except FileNotFoundError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}). Give another path.") from error


def make_folder(root: Path, name: str | Path) -> None:
    """Create a folder inside `root` (which must exist) and its parents, so that they survive a power cut.

    Raises:
        UnsafeFile: if something else is in the place of one of these folders.
    """
    parts = _parts(root, name)
    for count in range(1, len(parts) + 1):
        try:
            with open_folder(root, "/".join(parts[:count])):
                continue
        except FileNotFoundError:
            with (
                open_folder(root, "/".join(parts[: count - 1])) as parent,
                suppress(FileExistsError),
                _named(root / "/".join(parts[:count])),
            ):
                os.mkdir(parts[count - 1], dir_fd=parent)
                os.fsync(parent)


def create_file(root: Path, name: str | Path) -> IO[bytes]:
    """Create a file inside `root` and open it for unbuffered writing of bytes.

    Raises:
        FileExistsError: if anything exists there, including a link.
        UnsafeFile: if its path contains a link.
    """
    with _parent(root, name) as (parent, last), _named(root / name):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        return os.fdopen(os.open(last, flags, 0o666, dir_fd=parent), "wb", buffering=0)


def open_lock(root: Path, name: str | Path) -> IO[bytes]:
    """Open a lock file inside `root`, creating it if it is missing; raise UnsafeFile as `open_file` does."""
    return os.fdopen(_open(root, name, os.O_RDWR | os.O_CREAT, None), "r+b", buffering=0)


@contextmanager
def replacing(root: Path, name: str | Path) -> Iterator[Path]:
    """Write a file atomically: yield a new file beside `name` (same ending), renamed to `name` if the block succeeds.

    If the block fails, the new file is removed and `name` is unchanged. If `name` is a link, the link is replaced, not
    its target.

    Raises:
        UnsafeFile: if the path of the file contains a link, or `name` is a device, a named pipe or a socket.
    """
    with _parent(root, name) as (parent, last):
        with suppress(OSError):
            there = os.stat(last, dir_fd=parent, follow_symlinks=False)
            if not (
                stat.S_ISLNK(there.st_mode) or stat.S_ISDIR(there.st_mode)
            ):  # renaming fails for a folder
                _refuse_other_than(stat.S_ISREG, there, root, name)
        partial = Path(f".part-{secrets.token_hex(16)}{''.join(Path(last).suffixes[-1:])}")
        with _named(root / name):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o666, dir_fd=parent))
        try:
            yield (root / name).parent / partial
            with _named(root / name):
                os.replace(partial, last, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=parent)


def is_partial(name: str) -> bool:
    """Whether a file name was made by `replacing`, so that a killed process may have left the file."""
    return _PARTIAL.fullmatch(name) is not None


def move_file(root: Path, name: str, new_name: str) -> None:
    """Rename a file inside `root`, replacing what has the new name, and sync to disk."""
    with (
        _parent(root, name) as (parent, last),
        _parent(root, new_name) as (new_parent, new_last),
        _named(root / new_name),
    ):
        os.replace(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)
        os.fsync(new_parent)


def remove_file(root: Path, name: str | Path) -> None:
    """Remove a file inside `root` if it exists; raise UnsafeFile for anything but a regular file."""
    if file_size(root, name) is None:
        return
    with suppress(FileNotFoundError), _parent(root, name) as (parent, last), _named(root / name):
        os.unlink(last, dir_fd=parent)


def remove_folder(root: Path, name: str | Path) -> None:
    """Remove a folder inside `root` with its contents, if it exists.

    Raises:
        UnsafeFile: if it is a link, or contains anything but files and folders; nothing is removed then.
    """
    list_files(root, name, hidden=True)
    with suppress(FileNotFoundError), _parent(root, name) as (parent, last):
        shutil.rmtree(last, dir_fd=parent)


@contextmanager
def open_folder(root: Path, name: str | Path = "") -> Iterator[int]:
    """Open a folder inside `root` and yield its descriptor, for opening names in it.

    Raises:
        FileNotFoundError: if it does not exist.
        UnsafeFile: if it is not a folder, or its path contains a link.
    """
    descriptor = os.open(root, _FOLDER)
    try:
        parts = _parts(root, name)
        for count, part in enumerate(parts, start=1):
            below = "/".join(parts[:count])
            with _named(root / below):
                found = os.stat(part, dir_fd=descriptor, follow_symlinks=False)
                _refuse_other_than(stat.S_ISDIR, found, root, below)
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _parts(root: Path, name: str | Path) -> tuple[str, ...]:
    """Split a name into its parts; raise UnsafeFile if it leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in str(name) or len(path.parts) > MAX_DEPTH:
        raise UnsafeFile(f"{str(name)!r} must be a relative path inside {root}, without '..'.")
    return path.parts


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make errors of the operating system name the full path instead of its last part."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def _parent(root: Path, name: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the open parent folder of a name inside `root`, and the last part of the name."""
    parts = _parts(root, name)
    if not parts:
        raise UnsafeFile(f"Give the name of a file in {root}, not the folder itself.")
    with open_folder(root, "/".join(parts[:-1])) as folder:
        yield folder, parts[-1]


def _open(root: Path, name: str | Path, flags: int, limit: int | None) -> int:
    """Open a file and return its descriptor; raise UnsafeFile unless it is a regular file within the limit."""
    with _parent(root, name) as (parent, last), _named(root / name):
        # Checked twice: opening a device may have effects, and the file may be replaced in between.
        with suppress(FileNotFoundError):
            _refuse_other_than(stat.S_ISREG, os.stat(last, dir_fd=parent, follow_symlinks=False), root, name)
        descriptor = os.open(last, flags | _FILE, 0o666, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            _refuse_other_than(stat.S_ISREG, found, root, name)
            if limit is not None and found.st_size > limit:
                raise UnsafeFile(
                    f"{root / name} must have at most {limit} bytes; it has {found.st_size}. It is damaged or "
                    "malicious."
                )
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _walk(root: Path, folder: int, prefix: str, hidden: bool) -> Iterator[tuple[str, int]]:
    """Yield names and sizes of the files in an open folder and its subfolders, in no particular order."""
    if prefix.count("/") > MAX_DEPTH:
        raise UnsafeFile(f"{root} has folders nested more than {MAX_DEPTH} deep, unlike any study or cache.")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and not hidden:
                continue
            name = prefix + entry.name
            with suppress(FileNotFoundError):  # a writer removed it in the meantime
                found = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    _refuse_other_than(stat.S_ISREG, found, root, name)
                    yield name, found.st_size
                    continue
                inner = os.open(entry.name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    yield from _walk(root, inner, f"{name}/", hidden)
                finally:
                    os.close(inner)


def _refuse_other_than(is_wanted: Any, found: os.stat_result, root: Path, name: str | Path) -> None:
    """Raise UnsafeFile unless the file type is the expected one."""
    if is_wanted(found.st_mode):
        return
    wanted = "file" if is_wanted is stat.S_ISREG else "folder"
    is_usual = any(kind(found.st_mode) for kind in (stat.S_ISLNK, stat.S_ISDIR, stat.S_ISREG))
    # A device, pipe or socket may be the system's own.
    advice = f"Remove it, or get a new copy of {root}." if is_usual else "Give another path."
    raise UnsafeFile(
        f"{root / name} must be a {wanted}; it is a {_kind(found.st_mode)}, which was not opened. {advice}"
    )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_ISLNK: "link",
        stat.S_ISFIFO: "named pipe",
        stat.S_ISSOCK: "socket",
        stat.S_ISDIR: "folder",
        stat.S_ISREG: "file",
    }
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), "device")
