"""What a GPU will run, at tiny sizes on the CPU: every part measures, and none that fails ends the rest."""

import json
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import PARTS, run_all, run_apart, run_part

MEASURED = {
    "cache_paths": {"write_mb_per_s", "pinned_mb_per_s"},
    "ring": {"ring_rows_per_s", "ratio_ring"},
    "sae_training": {"rows_per_s", "ratio_to_rows_on_the_device"},
    "localisation_15": {"ratio_of_the_reference"},
    "localisation_v1": {"ratio_of_the_reference"},
    "tracing": {"ratio_traced_to_untraced"},
}


def read(folder: Path, part: str) -> dict:
    return json.loads((folder / f"gpu_{part}.json").read_text(encoding="utf-8"))


def test_the_documentation_says_what_the_machine_needs() -> None:
    page = (gpu.ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert gpu.NEEDED in " ".join(page.split())
    assert all(f"`{part}`" in page for part in PARTS)


def test_all_parts_but_the_tests_are_measured_here() -> None:
    assert {*MEASURED, "tests"} == set(PARTS), "tests/gpu runs in this suite itself"


@pytest.mark.parametrize("part", MEASURED)
def test_a_part_measures(part: str, tmp_path: Path) -> None:
    run_part(part, "cpu", True, tmp_path)
    document = read(tmp_path, part)
    assert document["machine"]["device"] == "cpu"
    assert set(document["peak_memory_gib"]) == {"process"}
    assert document["peak_memory_gib"]["process"] > 0.1
    assert "torch" in document["libraries"]
    for name in MEASURED[part]:
        assert document["metrics"][name] > 0, name
    assert not document["metrics"].get("failed")


def test_a_part_that_fails_does_not_end_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def apart(command: Sequence[str], seconds: float) -> str | None:
        asked.append(command[3])
        return {"ring": "ModuleNotFoundError: No module named 'zarr'"}.get(command[3])

    assert run_all(["cache_paths", "ring", "tracing"], [], "cpu", tmp_path, apart) == ["ring"]
    assert asked == ["cache_paths", "ring", "tracing"]
    assert "No module named 'zarr'" in read(tmp_path, "ring")["metrics"]["failed"]
    assert "ring: FAILED: ModuleNotFoundError" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["gpu_ring.json"], "the others write their own"


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BUDGET", -1)
    assert run_all(["ring"], [], "cpu", tmp_path) == ["ring"]
    assert read(tmp_path, "ring")["metrics"] == {"failed": "no time was left"}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("pass", None),
        ("import no_such_package", "No module named 'no_such_package' (exit code 1)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit code -9"),
    ],
    ids=["works", "raises", "is killed"],
)
def test_a_process_says_why_it_failed(program: str, reason: str | None) -> None:
    found = run_apart([sys.executable, "-c", program], 60)
    assert found is None if reason is None else reason in str(found)


def test_a_part_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Its pytest, for one, which would hold the GPU's memory; it is given up when nobody reads a pipe's other end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = f"import subprocess; subprocess.run(['sh', '-c', 'exec 9>{pipe}; sleep 600'])"
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert "not finished after" in str(run_apart([sys.executable, "-c", program], 2))
    assert select.select([reading], [], [], 60)[0], "who was killed lets go of the pipe"
    assert os.read(reading, 1) == b"", "the end of the pipe: nobody holds it open for writing"
    os.close(reading)


def test_failed_paths_and_tests_end_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "ring", lambda device, tiny: {"failed": {"kvikio": "no driver"}})
    monkeypatch.setattr(sys, "argv", ["gpu", "ring", "--here", "--device", "cpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"failed in part: .*no driver"):
        gpu.main()
    assert read(tmp_path, "ring")["metrics"]["failed"] == {"kvikio": "no driver"}


def test_unknown_parts_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "rings"])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert "there is no part rings: choose from" in capsys.readouterr().err
