"""librosa's compiled functions: one process at a time compiles them, and nobody loads what was compiled by halves."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import platformdirs
import pytest
from filelock import FileLock, Timeout

from workbench.scorers import librosa_import
from workbench.scorers.librosa_import import COMPLETE, import_librosa

Compile = Callable[[Path], None]


def test_it_imports_all_modules_with_functions_in_two_files() -> None:
    root = Path(import_librosa().__file__ or "").parent
    compiled = {
        ".".join(file.relative_to(root.parent).with_suffix("").parts)
        for file in root.rglob("*.py")
        if re.search(r"@(numba\.)?guvectorize\(|@numba\.vectorize\(", file.read_text())
    }
    assert compiled >= {"librosa.beat", "librosa.util.utils", "librosa.core.audio", "librosa.core.pitch"}
    assert compiled <= set(sys.modules)


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Compile], ModuleType]:
    """Import librosa anew in a user's empty cache folder, with a function in place of what compiles it."""

    def run(compile_into: Compile) -> ModuleType:
        def import_module(name: str) -> Any:
            if name == "librosa.beat":
                compile_into(Path(numba.config.CACHE_DIR))
            return numba if name == "numba" else sys

        with monkeypatch.context() as patch:
            patch.setattr(platformdirs, "user_cache_path", lambda *_, **__: tmp_path)
            patch.setattr(librosa_import, "import_module", import_module)
            patch.delitem(sys.modules, "librosa.util.utils", raising=False)
            return import_librosa.__wrapped__()

    return run


def test_what_was_compiled_by_halves_is_compiled_anew(
    importing: Callable[[Compile], ModuleType], tmp_path: Path
) -> None:
    before = numba.config.CACHE_DIR

    def killed(folder: Path) -> None:
        assert folder.parent == tmp_path
        folder.mkdir()
        (folder / "half").touch()
        raise KeyboardInterrupt

    def whole(folder: Path) -> None:
        assert not folder.exists()
        folder.mkdir()
        (folder / "whole").touch()

    def loaded(folder: Path) -> None:
        assert {file.name for file in folder.iterdir()} == {"whole", COMPLETE}

    with pytest.raises(KeyboardInterrupt):
        importing(killed)
    assert importing(whole) is sys
    importing(loaded)
    assert before == numba.config.CACHE_DIR


def test_other_processes_wait_meanwhile(importing: Callable[[Compile], ModuleType], tmp_path: Path) -> None:
    other = FileLock(tmp_path / "librosa.lock", timeout=0)

    def whole(folder: Path) -> None:
        folder.mkdir()
        with pytest.raises(Timeout):
            other.acquire()

    importing(whole)
    with other:
        assert other.is_locked


def test_another_folder_where_the_users_cannot_be_written(
    importing: Callable[[Compile], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def whole(folder: Path) -> None:
        folder.mkdir()
        folders.append(folder)

    monkeypatch.setattr(os, "access", lambda *_: False)
    importing(whole)
    assert folders[0].parent != tmp_path
    assert (folders[0] / COMPLETE).is_file()
