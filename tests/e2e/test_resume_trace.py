"""`kill -9` during `workbench trace`, at several moments: continuing gives the store and the audio of a whole run."""

import signal
from pathlib import Path

import pytest

from tests.e2e.killed import Killer, tree, workbench

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


def trace(model: Path, out: Path, killer: Killer | None = None) -> int:
    return workbench(killer, "trace", model, "--out", out, *TRACE)


@pytest.fixture(scope="module")
def uninterrupted(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("resume") / "whole"
    assert trace(tiny_folder, out) == 0
    return tree(out)


@pytest.mark.parametrize(
    "killer",
    [
        ("workbench.studies.tracing", "write_flac", 5),
        ("cache.writer", "CacheWriter.write_shard", 3),
        ("os", "fsync", 9),
        ("os", "replace", 12),
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
