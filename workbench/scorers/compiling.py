"""The first calls of librosa's compiled functions, one process at a time.

numba keeps compiled functions in a cache on disk. A process that loads one while another is writing it crashes, so the
first call of each, which compiles or loads it, is made under a lock that all processes of a user share.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_called: set[str] = set()


def lock_file() -> Path:
    """The file of the lock, in the folder for temporary files."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"workbench-{user}-compiling.lock"


@contextmanager
def compiling(function: str) -> Iterator[None]:
    """Hold the lock during the first call of a function in this process; its arguments always have the same types."""
    if function in _called:
        yield
        return
    with FileLock(lock_file()):
        yield
    _called.add(function)
