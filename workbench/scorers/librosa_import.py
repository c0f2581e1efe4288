"""Import librosa so that no process loads functions that were compiled by halves.

librosa compiles functions when it is imported, and numba keeps each in two files of a cache on disk. If two processes
compile at the same time, or one is killed meanwhile, the files do not fit together, and every process that loads them
crashes (numba issue 10128). So one process at a time compiles, and a folder without its mark is compiled anew.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import platformdirs

from cache.errors import UserError
from cache.opening import create_folder
from workbench.files import locked

COMPLETE = "complete"
"""The mark: an empty file in a folder of functions that were all compiled."""


@cache
def import_librosa() -> ModuleType:
    """Return librosa, with all functions compiled that are kept in two files.

    The first call takes 2 s, and 25 s in a new environment, on another processor, or if the user's cache folder cannot
    be written.
    """
    if "librosa.util.utils" not in sys.modules:  # otherwise the program that imported it has compiled it
        root = _cache_folder()
        with locked(root / "librosa.lock", root):
            _import_compiled(root / f"librosa-{_version()}")
    return import_module("librosa")


def _cache_folder() -> Path:
    """Return the user's cache folder, or one for this process if nothing can be written there."""
    folder = platformdirs.user_cache_path("audio-diffusion-workbench", appauthor=False)
    with suppress(OSError, UserError):
        create_folder(folder)
    return folder if os.access(folder, os.W_OK) else Path(_temporary().name)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder that is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="workbench-librosa-")


def _import_compiled(folder: Path) -> None:
    """Import the modules that are compiled, from a folder or into it."""
    if folder.exists() and not (folder / COMPLETE).is_file():
        shutil.rmtree(folder)
    with _numba_cache(folder):
        import_module("librosa.beat")  # imports the others
    (folder / COMPLETE).touch()


@contextmanager
def _numba_cache(folder: Path) -> Iterator[None]:
    """Have functions that are decorated meanwhile kept in a folder."""
    config = import_module("numba").config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _version() -> str:
    """Return a hash of all that compiled functions depend on: librosa, numba, Python and the processor."""
    from numba import __version__
    from numba.core.registry import cpu_target

    librosa = find_spec("librosa")
    processor = cpu_target.target_context.codegen().magic_tuple()
    parts = (librosa and librosa.origin, __version__, sys.version_info[:2], processor)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
