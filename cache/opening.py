"""What may be opened: only what lies inside a folder itself, never what a link in it leads to.

Studies and caches are passed around, so a folder may have been made by somebody who means harm. Every function here
takes a `root`, the folder that is trusted to be where its owner says (it may be reached through links, which are the
owner's), and the `name` of something inside it, with forward slashes. What lies below the root is guarded:

- names that are absolute or contain `..` are refused;
- links are not followed, neither in the last part of a name nor before it. Each part is opened on its own in the
  folder before it (`openat` with `O_NOFOLLOW`), so that nobody can exchange one meanwhile;
- named pipes, devices and sockets are refused, which could block for ever;
- a file larger than the reader can use is refused before it is read;
- new files have names that nobody can guess, and are created only where nothing is.
"""

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
# Opening a named pipe waits for its other end, unless told not to.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARTIAL = re.compile(r"\.part-[0-9a-f]{32}(\..*)?")


class UnsafeFile(UserError):
    """Something that is not opened: a link, a pipe, a path that leads out of its folder, a file that is too large."""


def open_file(root: Path, name: str | Path, limit: int | None = None) -> BufferedReader:
    """A file inside `root`, opened for reading as bytes.

    Args:
        root: the folder.
        name: of the file in it.
        limit: bytes that the file may have; None where its size does not matter, because it is read in pieces.

    Raises:
        FileNotFoundError: if there is none. UnsafeFile: for a link or whatever else is no file, on the way to it, too,
            and for a file that is too large.
    """
    return os.fdopen(_open(root, name, os.O_RDONLY, limit), "rb")


def read_file(root: Path, name: str | Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes; raises like `open_file`."""
    with open_file(root, name, limit) as file:
        # Reading up to the limit would take memory for all of it, and reading to the end what is added meanwhile.
        return file.read(min(limit, os.fstat(file.fileno()).st_size))


def read_json(root: Path, name: str | Path, limit: int) -> Any:
    """The value in a JSON file of at most `limit` bytes.

    Raises:
        ValueError: if it is no JSON (see `cache.protocol.parse_json`). FileNotFoundError, UnsafeFile: like `open_file`.
    """
    return parse_json(read_file(root, name, limit))


def file_size(root: Path, name: str | Path) -> int | None:
    """Bytes of a file inside `root`, or None if nothing is there.

    Raises:
        UnsafeFile: for a link or whatever else is no file, on the way to it, too.
    """
    try:
        with _parent(root, name) as (parent, last), _named(root / name):
            found = os.stat(last, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    _refuse_other_than(stat.S_ISREG, found, root, name)
    return found.st_size


def checked_path(root: Path, name: str | Path) -> Path:
    """The path of a file inside `root`, for libraries that open files by their names only.

    `open_file` is safer, because here a link could be put there between the check and the opening.

    Raises:
        FileNotFoundError: if there is none. UnsafeFile: like `open_file`.
    """
    if file_size(root, name) is None:
        raise FileNotFoundError(root / name)
    return root / name


def checked_folder(root: Path, name: str | Path) -> Path:
    """The path of a folder inside `root` that need not be there yet.

    Raises:
        UnsafeFile: if a link, or whatever else is no folder, is there or on the way to it.
    """
    with suppress(FileNotFoundError, NotADirectoryError), open_folder(root, name):
        pass  # whoever uses a root that is no folder is told so then
    return root / name


def list_files(root: Path, name: str | Path = "", hidden: bool = False) -> dict[str, int]:
    """Every file in a folder inside `root` and in the folders in it: its name below `root` -> bytes.

    Args:
        root: the folder.
        name: of the folder in it; by default all of `root`.
        hidden: whether to list names that begin with a dot, too.

    Raises:
        UnsafeFile: for a link or whatever else is neither file nor folder, anywhere, and for folders nested more than
            `MAX_DEPTH` deep. A folder that is not there has no files.
    """
    prefix = "".join(f"{part}/" for part in _parts(root, name))
    try:
        with open_folder(root, name) as folder:
            return dict(_walk(root, folder, prefix, hidden))
    except FileNotFoundError:
        return {}


def make_folder(root: Path, name: str | Path) -> None:
    """Make a folder inside `root` (which must be there), and those on the way, so that they survive a power cut.

    Raises:
        UnsafeFile: if a link, or whatever else is no folder, is there or on the way to it.
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
    """A new file inside `root`, opened for writing as bytes, without a buffer.

    Raises:
        FileExistsError: if anything is there, a link included. UnsafeFile: for links on the way.
    """
    with _parent(root, name) as (parent, last), _named(root / name):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        return os.fdopen(os.open(last, flags, 0o666, dir_fd=parent), "wb", buffering=0)


def open_lock(root: Path, name: str | Path) -> IO[bytes]:
    """A file inside `root` that is there to be locked, made empty where it is missing; raises UnsafeFile."""
    return os.fdopen(_open(root, name, os.O_RDWR | os.O_CREAT, None), "r+b", buffering=0)


@contextmanager
def replacing(root: Path, name: str | Path) -> Iterator[Path]:
    """An empty new file beside `name` (same ending) to write to; it becomes `name` when the block ends well.

    When the block fails, what it wrote is removed and `name` stays as it was. A link called `name` is replaced itself,
    and what it leads to stays as it is.

    Raises:
        UnsafeFile: for links on the way to the file.
    """
    with _parent(root, name) as (parent, last):
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
    """Whether a file name is one that `replacing` gives, and so what a killed process may have left."""
    return _PARTIAL.fullmatch(name) is not None


def move_file(root: Path, name: str, new_name: str) -> None:
    """Give a file inside `root` another name there, in place of what has that name; on the disk when it returns."""
    with (
        _parent(root, name) as (parent, last),
        _parent(root, new_name) as (new_parent, new_last),
        _named(root / new_name),
    ):
        os.replace(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)
        os.fsync(new_parent)


def remove_file(root: Path, name: str | Path) -> None:
    """Remove a file inside `root`, if it is there; raises UnsafeFile for links and whatever else is no file."""
    if file_size(root, name) is None:
        return
    with suppress(FileNotFoundError), _parent(root, name) as (parent, last), _named(root / name):
        os.unlink(last, dir_fd=parent)


def remove_folder(root: Path, name: str | Path) -> None:
    """Remove a folder inside `root` and what is in it, if it is there.

    Raises:
        UnsafeFile: before anything is removed, if it is a link or has links or whatever else is no file in it.
    """
    list_files(root, name, hidden=True)
    with suppress(FileNotFoundError), _parent(root, name) as (parent, last):
        shutil.rmtree(last, dir_fd=parent)


@contextmanager
def open_folder(root: Path, name: str | Path = "") -> Iterator[int]:
    """The descriptor of a folder inside `root`, to open names in it with.

    Raises:
        FileNotFoundError: if there is none. UnsafeFile: for links and whatever else is no folder.
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
    """The parts of a name, having refused one that leads out of its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in str(name) or len(path.parts) > MAX_DEPTH:
        raise UnsafeFile(
            f"{str(name)!r} is no name of something in {root}: give a path below that folder, without '..'"
        )
    return path.parts


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the operating system name this path, and not its last part, which was asked for in an open folder."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def _parent(root: Path, name: str | Path) -> Iterator[tuple[int, str]]:
    """The folder in which a name inside `root` lies, and the name's last part."""
    parts = _parts(root, name)
    if not parts:
        raise UnsafeFile(f"{root} was given without the name of a file in it")
    with open_folder(root, "/".join(parts[:-1])) as folder:
        yield folder, parts[-1]


def _open(root: Path, name: str | Path, flags: int, limit: int | None) -> int:
    """A descriptor of a file that is one, and not too large."""
    with _parent(root, name) as (parent, last), _named(root / name):
        # Looked at twice: opening a device may do something, and what is there may change meanwhile.
        with suppress(FileNotFoundError):
            _refuse_other_than(stat.S_ISREG, os.stat(last, dir_fd=parent, follow_symlinks=False), root, name)
        descriptor = os.open(last, flags | _FILE, 0o666, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            _refuse_other_than(stat.S_ISREG, found, root, name)
            if limit is not None and found.st_size > limit:
                raise UnsafeFile(
                    f"{root / name} has {found.st_size} bytes, and at most {limit} are read: it is damaged, or was "
                    "made to fill the memory"
                )
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _walk(root: Path, folder: int, prefix: str, hidden: bool) -> Iterator[tuple[str, int]]:
    """Names and bytes of the files in an open folder and below, in no order."""
    if prefix.count("/") > MAX_DEPTH:
        raise UnsafeFile(f"{root} has folders nested more than {MAX_DEPTH} deep, which no study or cache has")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and not hidden:
                continue
            name = prefix + entry.name
            with suppress(FileNotFoundError):  # removed by a writer meanwhile
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
    """Raise UnsafeFile unless something is of the wanted kind."""
    if is_wanted(found.st_mode):
        return
    wanted = "file" if is_wanted is stat.S_ISREG else "folder"
    raise UnsafeFile(
        f"{root / name} is a {_kind(found.st_mode)} where a {wanted} must be, and is not opened: remove it, or get "
        f"{root} anew from whom it came"
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
