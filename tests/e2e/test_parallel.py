"""Two commands at once on one study, as two processes: nothing is lost, or the second is refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.e2e.killed import Command
from workbench.studies.study import Study

TRACE = [
    "--n-prompts",
    "2",
    "--seeds",
    "1",
    "--duration",
    "2",
    "--num-steps",
    "2",
    "--site",
    "tf0.cross_attn",
]
PATCH = ["--concept", "tempo", "--pairs", "3", "--direction", "sufficiency"]


@pytest.fixture(scope="module")
def study(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parallel") / "study"
    assert Command("trace", tiny_folder, "--out", out, *TRACE).end()[0] == 0
    return out


def test_two_maps_at_once_lose_nothing(study: Path) -> None:
    blocks = Command("patch", study, *PATCH, "--name", "a")
    steps = Command("patch", study, *PATCH, "--name", "b", "--question", "steps", "--windows", "2")
    assert [process.end()[0] for process in (blocks, steps)] == [0, 0]
    for name in ("patching-a", "patching-b"):
        result = Study.open(study).result(name)
        assert not np.isnan(result.score).any()
        assert result.n.values.tolist() == [[3]]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("patching-blocks", ["patch", *PATCH]),
        ("probes", ["probe", "--folds", "2"]),
        ("sae-tf0.cross_attn", ["sae train", "--site", "tf0.cross_attn"]),
    ],
)
def test_a_result_that_another_process_makes_is_refused(study: Path, name: str, command: list[str]) -> None:
    with Study.open(study).making(name):
        code, said = Command(*command[0].split(), study, *command[1:]).end()
    assert code == 2
    assert f"Another process is computing the result '{name}'" in said
    assert ("give another name (--name)" in said) == (name != "probes")
    assert name not in Study.open(study).result_names()


def test_two_traces_at_once_give_one_study(tiny_folder: Path, tmp_path: Path) -> None:
    """The second is refused while the first writes, or finds the study finished."""
    both = [Command("trace", tiny_folder, "--out", tmp_path / "s", *TRACE) for _ in range(2)]
    outcomes = sorted(process.end() for process in both)
    assert outcomes[0][0] == 0, outcomes
    assert outcomes[1][0] == 0 or "another writer" in outcomes[1][1]
    study = Study.open(tmp_path / "s")
    assert np.isfinite(study.cache.read("tf0.cross_attn")).all()
    assert all(study.audio_path(clip).is_file() for clip in study.clips["clip"])
