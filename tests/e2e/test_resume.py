"""`kill -9` during `workbench trace`, at several moments: continuing gives the store of an uninterrupted run."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The command line in a process that kills itself at the n-th call of a function.
KILLED = """
import importlib, os, signal, sys
module, name, count = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
owner = importlib.import_module(module)
for part in name.split(".")[:-1]:
    owner = getattr(owner, part)
original = getattr(owner, name.split(".")[-1])
def counted(*args, **kwargs):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(owner, name.split(".")[-1], counted)
from workbench.cli import main
main()
"""


def trace(model: Path, out: Path, *killer: str) -> int:
    options = [
        "--n-prompts",
        "8",
        "--seeds",
        "1",
        "--duration",
        "0.5",
        "--num-steps",
        "2",
        "--clips-per-shard",
        "3",
    ]
    program = [sys.executable, "-c", KILLED, *(killer or ("workbench.cli", "main", "-1"))]
    return subprocess.run(
        [*program, "trace", str(model), "--out", str(out), *options], capture_output=True
    ).returncode


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file that a trace writes; study.json holds the date and is compared apart."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "study.json"]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def uninterrupted(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("resume") / "whole"
    assert trace(tiny_folder, out) == 0
    return tree(out)


@pytest.mark.parametrize(
    "killer",
    [
        ("workbench.capture", "write_flac", "5"),
        ("cache.writer", "CacheWriter.write_shard", "3"),
        ("os", "fsync", "9"),
        ("os", "replace", "12"),
    ],
    ids=lambda killer: killer[1],
)
def test_a_killed_trace_continues_to_the_same_bytes(
    tiny_folder: Path, tmp_path: Path, uninterrupted: dict[str, str], killer: tuple[str, str, str]
) -> None:
    out = tmp_path / "study"
    assert trace(tiny_folder, out, *killer) == -signal.SIGKILL
    assert tree(out) != uninterrupted
    assert trace(tiny_folder, out) == 0
    assert tree(out) == uninterrupted
