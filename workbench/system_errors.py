"""Describe errors of the operating system to the user in one sentence."""

import errno
import os
from pathlib import Path

_BAD_PATH = (
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.EINVAL,
    errno.EILSEQ,
    errno.ENXIO,
)
_DENIED = (errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN = (errno.EIO, errno.ESTALE)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


def refusal(error: OSError) -> str | None:
    """Return a sentence if the cause is a path, a permission, a disk or a limit, otherwise None."""
    if error.errno is None:
        return None
    reason = os.strerror(error.errno)
    if error.errno in _BAD_PATH and error.filename:
        return f"{error.filename} cannot be used ({reason}). Give another path."
    what = error.filename or "A file"
    if error.errno in _DENIED:
        return f"{what} cannot be {_denied(error.filename)} ({reason}). Change its permissions, or give another path."
    if error.errno == errno.EROFS:
        return f"{what} cannot be written ({reason}). Give a path on another disk."
    if error.errno in _FULL:
        return f"{what} cannot be written ({reason}). Free some space and run the command again."
    if error.errno in _BROKEN:
        return f"{what} cannot be read or written ({reason}). Check the disk and run the command again."
    if error.errno in _TOO_MANY:
        return (
            f"{what} cannot be opened ({reason}). Close other programs, or raise the limit with `ulimit -n`."
        )
    return None


def _denied(filename: str | None) -> str:
    """Return what was not permitted: writing, if the file can be read or is missing."""
    if filename is None:
        return "written"
    path = Path(filename)
    try:
        found = path.exists()
    except PermissionError:  # the folder is not accessible
        return "opened"
    return "read" if found and not os.access(path, os.R_OK) else "written"
