"""`workbench steer apply` and `ladder` on a tiny model, with a vector of other steps."""

from pathlib import Path

import pytest

from analyses.steering import run
from analyses.steering.caa import caa
from tests.analyses.steering.test_run import Heard
from tests.e2e.cli import Workbench, workbench
from tests.workbench.studies.test_study import PROMPTS, study_spec
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study

__all__ = ["workbench"]


def test_vectors_of_other_steps_are_tried_if_they_are_resampled(
    workbench: Workbench, tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": Heard())
    folder = trace_study(tmp_path / "study", study_spec(tiny), tiny).path
    short = GenerationSettings(duration=0.5, num_steps=2)
    vector = caa(tiny, "tempo", "tf1.cross_attn", prompts=PROMPTS, pairs=1, settings=short)
    file = vector.save(tmp_path / "short.safetensors")
    options = ("--pack", file, "--pairs", 1, "--random", 0, "--strength", 1)
    ladder = ("ladder", folder, "--concept", "tempo", "--sites", "all", "--fit-pairs", 1)
    for command in (("apply", folder), ladder):
        outcome = workbench("steer", *command, *options)
        assert outcome.code == 2 and "resample the vector by sigma" in outcome.err
        outcome = workbench("steer", *command, *options, "--resample", "sigma")
        assert outcome.code == 0, outcome.err
        assert "The vector short is resampled by the nearest sigma, from 2 steps" in " ".join(
            outcome.err.split()
        )
    study = Study.open(folder)
    assert study.result("steering-tempo").row.values.tolist() == ["", "", "short"]
    assert study.result("steering-ladder-tempo").row.values[-2:].tolist() == ["vector", "pack short"]
