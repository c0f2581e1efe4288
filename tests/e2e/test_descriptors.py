"""Vectors of descriptors are computed, and measured on other prompts, from the command line."""

from pathlib import Path

import pytest

from analyses.steering.descriptor_clips import study_clips
from analyses.steering.vector import load_vector
from tests.e2e.cli import Workbench, workbench
from tests.e2e.test_bad_input import assert_refused
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study

__all__ = ["workbench"]

FIT = ("--descriptor", "level", "--sites", "tf1.block", "--clips", "3")


@pytest.fixture(scope="module")
def study(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny study."""
    return trace_study(tmp_path_factory.mktemp("descriptors") / "study", study_spec(tiny), tiny).path


def test_a_descriptor_is_fitted_and_measured_on_other_prompts(workbench: Workbench, study: Path) -> None:
    made = workbench(
        "steer", "fit-descriptor", study, *FIT[:4], "--time", "token", "--side", "above", "--clips", "5"
    )
    assert made.code == 0, made.err
    vector = load_vector(study / "packs" / "level.safetensors")
    assert (vector.concept, vector.positive, vector.method) == ("level", "high", "descriptor_covariance")
    assert "token" in vector.directions["tf1.block"].dims and len(vector.examples) == 3
    measured = workbench(
        "steer", "measure", study, "--pack", "level", "--clips", "2", "--strength", "3", "--random", "1"
    )
    assert measured.code == 0, measured.err
    assert "Change of level in dB (" in measured.out and " dB in 2 unsteered clips" in measured.out
    fitted = workbench(
        "steer", "fit", study, "--concept", "level", "--sites", "tf1.block", "--name", "of-pairs"
    )
    assert_refused(fitted, "Unknown concept 'level'", "`workbench steer fit-descriptor`")
    few = ("--pairs", "2", "--strength", "3")
    applied = workbench("steer", "apply", study, "--pack", "level", *few, "--random", "1")
    assert applied.code == 0, applied.err
    assert "scorer descriptors" in applied.out
    result = Study.open(study).result("steering-level")
    assert result.scorer.values.tolist() == ["descriptors"]
    own = result.isel(scorer=0).sel(concept="level")
    assert own.score.notnull().all()
    assert own.effect.sel(arm="level × 3").item() == pytest.approx(
        float((own.score.sel(arm="level × 3") - own.score.sel(arm="corrupt")).mean())
    )
    steered = set(result.corrupt_prompt.values.tolist())
    assert not steered & {example.prompt for example in vector.examples}
    checked = workbench("steer", "check", study, "level", *few[:2])
    assert checked.code == 0, checked.err
    assert load_vector(study / "packs" / "level.safetensors").checks[0].scorer == "descriptors"
    again = workbench("steer", "fit-descriptor", study, *FIT)
    assert_refused(again, "has a vector 'level' already", "--name")


def test_prompts_are_used_again_only_if_there_are_too_few(study: Path) -> None:
    opened = Study.open(study)
    n = opened.spec.prompts.n_prompts
    clips = study_clips(opened, n + 2, seed=5)
    texts = [clip.prompt for clip in clips]
    assert len(set(texts[:n])) == n and texts[n:] == texts[:2]
    assert [clip.seed for clip in clips] == list(range(5, n + 7))
    (left,) = {clip.prompt for clip in study_clips(opened, 3, 0, without=set(texts[1:n]))}
    assert left == texts[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit-descriptor", "--descriptor", "warmth", "--sites", "all"), ("'warmth'", "brightness")),
        (
            ("fit-descriptor", *FIT[:2], "--sites", "tf9", "--name", "far"),
            ("tf9 does not exist", "tf0 to tf1"),
        ),
        (("fit-descriptor", *FIT, "--name", "a/b"), ("letters, digits", "a/b")),
        (("measure", "--pack", "nothing"), ("nothing",)),
    ],
)
def test_what_cannot_be_asked_for(
    workbench: Workbench, study: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    command, *rest = arguments
    assert_refused(workbench("steer", command, study, *rest), *words)


def test_a_vector_of_all_prompts_cannot_be_tried(workbench: Workbench, study: Path) -> None:
    n = Study.open(study).spec.prompts.n_prompts
    made = workbench("steer", "fit-descriptor", study, *FIT[:4], "--clips", str(n), "--name", "every")
    assert made.code == 0, made.err
    assert_refused(workbench("steer", "measure", study, "--pack", "every"), "none is left to try it on")
