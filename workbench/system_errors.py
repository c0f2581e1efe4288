"""What the operating system refuses, in one sentence for the person who asked."""

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
    """The sentence on a path, a permission, a disk or a limit that is to blame; None where it is none of them."""
    if error.errno is None:
        return None
    reason = os.strerror(error.errno)
    if error.errno in _BAD_PATH and error.filename:
        return f"{error.filename} cannot be used ({reason}): give another path."
    what = error.filename or "A file"
    if error.errno in _DENIED:
        return f"{what} cannot be {_denied(error.filename)} ({reason}): change its permissions, or give another path."
    if error.errno == errno.EROFS:
        return f"{what} cannot be written ({reason}): give a path on another disk."
    if error.errno in _FULL:
        return f"{what} cannot be written ({reason}): make room, and run the command again."
    if error.errno in _BROKEN:
        return f"{what} cannot be read or written ({reason}): check its disk, and run the command again."
    if error.errno in _TOO_MANY:
        return f"{what} cannot be opened ({reason}): close other programs, or allow more with `ulimit -n`."
    return None


def _denied(filename: str | None) -> str:
    """What was not allowed: a file that is there and can be read was to be written; one that is missing, too."""
    if filename is None:
        return "written"
    path = Path(filename)
    try:
        found = path.exists()
    except PermissionError:  # in a folder that may not be entered
        return "opened"
    return "read" if found and not os.access(path, os.R_OK) else "written"
