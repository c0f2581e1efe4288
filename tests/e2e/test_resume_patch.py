"""`kill -9` during `workbench patch`, at several moments: continuing gives the audio and the scores of a whole run."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import xarray as xr

from tests.e2e.killed import Killer, tree, workbench
from workbench.studies.study import Study

# The arms of a pair with four seeds: four units, each with the runs of two clips; the scorer wants two seconds.
LONGER = ["--n-prompts", "2", "--seeds", "1", "--duration", "2", "--num-steps", "2", "--clips-per-shard", "2"]
PATCH = ["--concept", "tempo", "--pairs", "1", "--seeds", "4", "--set", "tf0+tf1", "--null", "unrelated"]
UNITS = 4


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
    return tree(study / "audio" / "runs")


@pytest.fixture(scope="module")
def patched(traced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study patched without interruption."""
    study = shutil.copytree(traced, tmp_path_factory.mktemp("resume") / "patched")
    assert patch(study) == 0
    assert len(list(study.rglob("runs.json"))) == 2 * UNITS
    assert Study.open(study).result("patching-blocks").score.notnull().all()
    return study


@pytest.mark.parametrize(
    "killer",
    [
        ("workbench.studies.runs", "write_flac", 12),
        ("os", "replace", 9),
        ("os", "replace", 20),
        ("workbench.studies.runs", "RunStore._change", 6),
        ("workbench.models.running", "visit_call", 6),
        ("workbench.scorers.embedded", "EmbeddedScorer.score", 3),
    ],
    ids=lambda killer: f"{killer[1]}-{killer[2]}",
)
def test_a_killed_sweep_continues_to_the_same_scores_and_audio(
    traced: Path, patched: Path, tmp_path: Path, killer: Killer
) -> None:
    study = shutil.copytree(traced, tmp_path / "study")
    assert patch(study, killer) == -signal.SIGKILL
    assert Study.open(study).result_names() == []
    kept = list(study.rglob("runs.json"))
    scored = {file: file.stat().st_mtime_ns for file in kept if _is_scored(file)}
    assert patch(study) == 0
    assert audio(study) == audio(patched)
    ours, theirs = (Study.open(folder).result("patching-blocks") for folder in (study, patched))
    xr.testing.assert_identical(ours.drop_attrs(), theirs.drop_attrs())
    assert all(file.stat().st_mtime_ns == changed for file, changed in scored.items()), "what was done stays"
    rows = [result.attrs["denoiser_rows"] for result in (theirs, ours)]
    whole, halves = divmod(len(kept), 2)
    assert rows[1] == rows[0] * (1 - whole / UNITS) or (halves and rows[1] < rows[0] * (1 - whole / UNITS))


def _is_scored(file: Path) -> bool:
    return all(run["scores"] for run in json.loads(file.read_text())["runs"].values())
