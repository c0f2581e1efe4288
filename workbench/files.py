"""Atomic file writing, locks, and safe file names."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cache import opening
from cache.errors import UserError
from workbench.system_errors import refusal

LONGEST_SLUG = 60
# Names that are valid and distinct on every file system; Windows reserves device names with any ending.
_PLAIN = re.compile(
    rf"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[a-z0-9][a-z0-9_.+=-]{{0,{LONGEST_SLUG - 1}}}(?<!\.)"
)
_HASHED = re.compile(r".*-[0-9a-f]{8}")


@contextmanager
def replacing(path: Path, root: Path | None = None) -> Iterator[Path]:
    """Write a file atomically: yield a new file beside `path` (same ending), renamed to `path` if the block succeeds.

    The folder is created if it is missing. If the block fails, the new file is removed and `path` is unchanged. If
    `path` is in an untrusted folder, such as a study, `root` is that folder: links between the two are not followed.

    Raises:
        UserError: if the system refuses to write, such as for a full disk.
        cache.opening.UnsafeFile: if there is such a link.
    """
    folder = root or path.parent
    name = path.relative_to(folder)
    try:
        opening.create_folder(folder)
        opening.make_folder(folder, name.parent)
        with opening.replacing(folder, name) as partial:
            yield partial
    except OSError as error:
        is_named = error.filename and not opening.is_partial(Path(error.filename).name)
        sentence = refusal(OSError(error.errno, error.strerror, error.filename if is_named else str(path)))
        if isinstance(error, FileNotFoundError) and error.filename == str(path):  # as in /proc
            sentence = f"{path} cannot be written ({error.strerror}). Give another path."
        if sentence is None:
            raise
        raise UserError(sentence) from error


def file_name(name: str) -> str:
    """Return the file or folder name for a user's `name`: never a path, and different for different names.

    A short plain name, such as "tempo", is unchanged. Any other name becomes a slug followed by a hash, so that names
    that differ only in case, accents or punctuation stay distinct.
    """
    if _PLAIN.fullmatch(name) and not _HASHED.fullmatch(name):
        return name
    return f"{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def slug(text: str) -> str:
    """Return a readable part of a text that is valid in a file name; not unique, never empty."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_+=]+", "-", letters)[:LONGEST_SLUG].strip("-") or "unnamed"


def file_version(path: Path) -> tuple[int, int, int]:
    """Return a value that changes when a file is modified or replaced, even within one clock tick."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


@contextmanager
def locked(path: Path, root: Path, busy: str = "") -> Iterator[None]:
    """Hold a lock file, created in a folder below `root`, which one process at a time can hold.

    If another process holds it, wait; or, if `busy` is given, raise it as a UserError. The operating system releases
    the lock when the process ends, even if it is killed; the empty file stays.

    Raises:
        cache.opening.UnsafeFile: if the path contains a link, or is not a regular file.
    """
    opening.create_folder(root)
    opening.make_folder(root, path.relative_to(root).parent)
    opening.file_size(root, path.relative_to(root))  # raises for a link
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
    """Remove partial files of killed processes in a folder inside `root`; no other process may be writing there."""
    for name in opening.list_files(root, folder.relative_to(root), hidden=True):
        if opening.is_partial(Path(name).name):
            opening.remove_file(root, name)
