"""Files that are whole or not there, and names for them."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cache import opening
from cache.errors import UserError

LONGEST_SLUG = 60
# What every file system takes and keeps apart; Windows reserves device names, with any ending.
_PLAIN = re.compile(
    rf"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[a-z0-9][a-z0-9_.+=-]{{0,{LONGEST_SLUG - 1}}}(?<!\.)"
)
_HASHED = re.compile(r".*-[0-9a-f]{8}")


@contextmanager
def replacing(path: Path, root: Path | None = None) -> Iterator[Path]:
    """A new file beside `path` (same ending) to write to; it becomes `path` when the block ends well.

    The folder is made where it is missing. When the block fails, what it wrote is removed and `path` stays as it was.
    Where `path` lies in a folder that came from elsewhere, such as a study, `root` is that folder: links between the
    two are not followed.

    Raises:
        cache.opening.UnsafeFile: for such a link.
    """
    folder = root or path.parent
    name = path.relative_to(folder)
    folder.mkdir(parents=True, exist_ok=True)
    opening.make_folder(folder, name.parent)
    with opening.replacing(folder, name) as partial:
        yield partial


def file_name(name: str) -> str:
    """The name of a file or folder for what people call `name`: never a path, and different for different names.

    A short plain name, such as "tempo", is kept. Any other one becomes its letters that every file system takes,
    followed by a hash of the whole: names that differ in case, accents or punctuation only stay apart.
    """
    if _PLAIN.fullmatch(name) and not _HASHED.fullmatch(name):
        return name
    return f"{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def slug(text: str) -> str:
    """The part of a text that can stand in a file's name, to make the name readable; not unique, never empty."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_+=]+", "-", letters)[:LONGEST_SLUG].strip("-") or "unnamed"


def file_version(path: Path) -> tuple[int, int, int]:
    """What tells the versions of a file apart: a replaced file is another one, even at the same moment."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


@contextmanager
def locked(path: Path, root: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock of this file, which is made for it in a folder below `root`: one process at a time.

    Where another process holds it, wait for it; or, where a sentence for that case is given as `busy`, raise it as
    UserError. The operating system lets go of the lock when its process ends, however it ends; the empty file stays.

    Raises:
        cache.opening.UnsafeFile: for a link, or whatever else is no file, in the file's place or on the way to it.
    """
    root.mkdir(parents=True, exist_ok=True)
    opening.make_folder(root, path.relative_to(root).parent)
    opening.file_size(root, path.relative_to(root))  # refuses a link in its place, with the reason
    lock = FileLock(path, timeout=0 if busy else -1)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(busy) from error
    try:
        yield
    finally:
        lock.release()


def remove_partials(root: Path, folder: Path) -> None:
    """Remove what killed processes left half-written in a folder inside `root`; nobody else may write there."""
    for name in opening.list_files(root, folder.relative_to(root), hidden=True):
        if opening.is_partial(Path(name).name):
            opening.remove_file(root, name)
