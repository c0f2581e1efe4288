"""Vectors are judged on other pairs when they are computed, or afterwards, and the pack says what was found."""

from pathlib import Path

import pytest

from analyses.steering import judging
from analyses.steering.study_packs import load_packs
from analyses.steering.vector import Vector, load_vector
from tests.e2e.cli import Workbench, workbench
from tests.e2e.killed import tree
from tests.e2e.test_bad_input import assert_refused
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study

__all__ = ["workbench"]

FIT = ("--concept", "tempo", "--sites", "tf0", "--pairs", "1")


@pytest.fixture(scope="module")
def study(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny study with two pairs of tempo."""
    return trace_study(tmp_path_factory.mktemp("judged") / "study", study_spec(tiny), tiny).path


def pack(study: Path, name: str) -> Vector:
    return load_vector(study / "packs" / f"{name}.safetensors")


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_new_vector_is_judged(workbench: Workbench, study: Path) -> None:
    outcome = workbench("steer", "fit", study, *FIT, "--name", "judged", "--check-pairs", "1")
    assert outcome.code == 0, outcome.err
    (check,) = pack(study, "judged").checks
    assert (check.scorer, check.pairs, check.sign.minus, check.sign.plus) == ("embedded", 1, -1, 1)
    assert "judge embedded too few pairs to tell (change of the score from strength −1 to 1: " in words(
        outcome.out
    )
    assert "steering-check-judged" in Study.open(study).result_names()
    assert "too few pairs to tell" in words(workbench("steer", "list", study).out)


def test_with_too_few_other_prompts_the_vector_is_kept_and_judged_later(
    workbench: Workbench, study: Path
) -> None:
    outcome = workbench("steer", "fit", study, *FIT, "--name", "few")
    assert outcome.code == 0, outcome.err
    assert "The vector is not judged. The number of pairs of tempo must be from 1 to 1" in words(outcome.err)
    assert "`workbench steer check`" in words(outcome.err)
    assert "judge not judged" in words(outcome.out)
    assert not pack(study, "few").checks
    again = workbench("steer", "fit", study, *FIT, "--name", "few")
    assert_refused(again, "has a vector 'few' already", "`workbench steer check`")
    outcome = workbench("steer", "check", study, "few", "--pairs", "1", "--strength", "-2", "--strength", "2")
    assert outcome.code == 0, outcome.err
    (check,) = pack(study, "few").checks
    assert [effect.strength for effect in check.effects] == [-2, 2]


def test_a_vector_is_kept_if_its_judging_is_stopped(
    workbench: Workbench, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(judging, "run_steering", stopped)
    outcome = workbench("steer", "fit", study, *FIT, "--name", "stopped", "--check-pairs", "1")
    assert outcome.code != 0
    assert not pack(study, "stopped").checks
    assert all(isinstance(each, Vector) for each in load_packs(study).values())


def test_judging_can_be_left_out(workbench: Workbench, study: Path) -> None:
    outcome = workbench("steer", "fit", study, *FIT, "--name", "plain", "--check-pairs", "0")
    assert outcome.code == 0 and "Note" not in outcome.err
    assert "not judged" in words(outcome.out) and not pack(study, "plain").checks
    assert "steering-check-plain" not in Study.open(study).result_names()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("fit", *FIT, "--name", "new", "--scorer", "ears"), ("Unknown scorer 'ears'",)),
        (("fit", *FIT, "--name", "new", "--scorer", "embedded", "--scorer", "embedded"), ("given twice",)),
        (("fit", *FIT, "--name", "new", "--check-pairs", "0", "--scorer", "embedded"), ("--scorer is for",)),
        (("fit", *FIT, "--name", "new", "--check-pairs", "-1"), ("--check-pairs",)),
        (("check", "nowhere"), ("nowhere", "cannot be read")),
        (("check", "../study"), ("cannot be read",)),
    ],
)
def test_mistakes_are_refused_before_anything_is_computed(
    workbench: Workbench, study: Path, arguments: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    before = tree(study)
    command, *options = arguments
    assert_refused(workbench("steer", command, study, *options), *expected)
    assert tree(study) == before
