"""The first call of a compiled function holds a lock that all processes share."""

from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from workbench.scorers import compiling as module


def test_the_first_call_of_each_function_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lock_file", lambda: tmp_path / "lock")
    monkeypatch.setattr(module, "_called", set())
    other = FileLock(tmp_path / "lock", timeout=0)
    for function in ("one", "two"):
        with module.compiling(function), pytest.raises(Timeout):
            other.acquire()
        with module.compiling(function), other:
            pass
    with pytest.raises(ZeroDivisionError), module.compiling("fails"):
        1 / 0  # noqa: B018 - it has not been compiled
    with module.compiling("fails"), pytest.raises(Timeout):
        other.acquire()
