"""What a command is given below the working folder is found from any other one."""

import json
from pathlib import Path

import pytest

from tests.e2e.cli import Workbench, workbench
from workbench.studies.study import Study

__all__ = ["workbench"]

PAIRS = (
    "original_feature,clean_prompt,corrupted_prompt\n"
    "fast,a fast song with drums,a slow song with drums\n"
    "fast,a fast song without drums,a slow song without drums\n"
)


def test_a_store_and_a_file_of_pairs_are_found_from_another_folder(
    workbench: Workbench, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("pairs.csv").write_text(PAIRS)
    trace = (
        "trace",
        tiny_folder,
        "--n-prompts",
        "2",
        "--seeds",
        "1",
        "--num-steps",
        "2",
        "--duration",
        "2",
    )
    assert workbench(*trace, "--out", "study", "--store", "far.zarr").code == 0
    patch = ("--pairs-file", "pairs.csv", "--pairs", "2", "--block", "tf0")
    assert workbench("patch", "study", *patch).code == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = Study.open(tmp_path / "here" / "study")
    assert study.store == str(tmp_path / "here" / "far.zarr")
    assert study.cache.plan.n_clips == 2
    spec = json.loads(study.result("patching-blocks").attrs["spec"])
    assert spec["pairs_file"] == str(tmp_path / "here" / "pairs.csv")
    outcome = workbench("patch", study.path, "--pairs-file", "../here/pairs.csv", *patch[2:])
    assert "done already" in outcome.err
    assert not list((tmp_path / "elsewhere").iterdir())
