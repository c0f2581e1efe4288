"""`kill -9` during `workbench trace` and `workbench patch`, at several moments.

Continuing gives the store, the audio and the scores of an uninterrupted run.
"""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from workbench.study import Study

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


Killer = tuple[str, str, str]
TRACE = [
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
# The arms of two pairs and two seeds: four units; the scorer wants two seconds.
LONGER = ["--n-prompts", "2", "--seeds", "1", "--duration", "2", "--num-steps", "2", "--clips-per-shard", "2"]
PATCH = ["--concept", "tempo", "--pairs", "2", "--seeds", "2", "--set", "tf0+tf1", "--null", "unrelated"]
UNITS = 4


def workbench(killer: Killer | None, *arguments: object) -> int:
    """Exit code of the command line, killed at that moment."""
    program = [sys.executable, "-c", KILLED, *(killer or ("workbench.cli", "main", "-1"))]
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def trace(model: Path, out: Path, killer: Killer | None = None) -> int:
    return workbench(killer, "trace", model, "--out", out, *TRACE)


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
    tiny_folder: Path, tmp_path: Path, uninterrupted: dict[str, str], killer: Killer
) -> None:
    out = tmp_path / "study"
    assert trace(tiny_folder, out, killer) == -signal.SIGKILL
    assert tree(out) != uninterrupted
    assert trace(tiny_folder, out) == 0
    assert tree(out) == uninterrupted


@pytest.fixture(scope="module")
def traced(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study to patch."""
    out = tmp_path_factory.mktemp("resume") / "traced"
    assert workbench(None, "trace", tiny_folder, "--out", out, *LONGER) == 0
    return out


def patch(study: Path, killer: Killer | None = None) -> int:
    return workbench(killer, "patch", study, *PATCH)


def audio(study: Path) -> dict[str, str]:
    """Hash of every file of the sweep, records included."""
    return tree(study / "audio" / "patching")


@pytest.fixture(scope="module")
def patched(traced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study patched without interruption."""
    study = shutil.copytree(traced, tmp_path_factory.mktemp("resume") / "patched")
    assert patch(study) == 0
    assert len(list(study.rglob("arms.json"))) == UNITS
    assert Study.open(study).result("patching-blocks").score.notnull().all()
    return study


@pytest.mark.parametrize(
    "killer",
    [
        ("analyses.sweep", "write_flac", "12"),
        ("os", "replace", "9"),
        ("os", "replace", "20"),
        ("workbench.models.traced_pipeline", "visit_call", "6"),
        ("workbench.scorers.embedded", "EmbeddedScorer.score", "3"),
    ],
    ids=lambda killer: f"{killer[1]}-{killer[2]}",
)
def test_a_killed_sweep_continues_to_the_same_scores_and_audio(
    traced: Path, patched: Path, tmp_path: Path, killer: Killer
) -> None:
    study = shutil.copytree(traced, tmp_path / "study")
    assert patch(study, killer) == -signal.SIGKILL
    assert Study.open(study).result_names() == []
    kept = list(study.rglob("arms.json"))
    scored = {file: file.stat().st_mtime_ns for file in kept if _is_scored(file)}
    assert patch(study) == 0
    assert audio(study) == audio(patched)
    ours, theirs = (Study.open(folder).result("patching-blocks") for folder in (study, patched))
    xr.testing.assert_identical(ours.drop_attrs(), theirs.drop_attrs())
    assert all(file.stat().st_mtime_ns == changed for file, changed in scored.items()), "what was done stays"
    assert ours.attrs["denoiser_rows"] == theirs.attrs["denoiser_rows"] * (1 - len(kept) / UNITS)


def _is_scored(file: Path) -> bool:
    return all(arm["scores"] for arm in json.loads(file.read_text()).values())
