"""Vectors on trial before a judge: what it says is in the vector and its pack, and nothing is lost or repeated."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analyses.steering import run
from analyses.steering.checks import Check, compared, sign_verdict
from analyses.steering.judging import judge_pack, judged, trial_name
from analyses.steering.nulls import random_vectors
from analyses.steering.stacking import stack
from analyses.steering.study_files import pack_file
from analyses.steering.study_packs import save_pack
from analyses.steering.vector import Vector, load_vector
from analyses.steering_spec import SteeringSpec
from cache.errors import UserError
from tests.analyses.steering.checked import check_of
from tests.analyses.steering.test_run import PROMPTS, SITES, vector
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study

__all__ = ["vector"]


class Loud:
    """Scores each clip by its loudness for every text, or nothing by name."""

    identity, min_seconds = "1", 0.0

    def __init__(self, name: str) -> None:
        self.name = name

    def check_texts(self, texts: Sequence[str]) -> None:
        pass

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        loudness = (audio**2).mean(axis=(-2, -1)) if self.name == "embedded" else np.full(len(audio), np.nan)
        return np.stack([loudness] * len(texts), axis=1)


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": Loud(name))
    return Study.create(tmp_path / "study", study_spec(tiny, prompts=PROMPTS), tiny.describe(), str)


def test_what_the_judge_says_is_that_of_the_trial(study: Study, tiny: AceStep15, vector: Vector) -> None:
    made = judged(study, tiny, vector, "Slow Songs", pairs=2, scorers=("embedded", "clap"))
    (name,) = study.result_names()
    assert name.startswith("steering-check-Slow-Songs-")
    result = study.result(name)
    assert not set(result.corrupt_prompt.values) & {example.prompt for example in vector.examples}
    heard, deaf = made.checks
    own = result.sel(scorer="embedded", concept="tempo")
    assert (heard.scorer, heard.identity, heard.pairs) == ("embedded", "1", 2)
    for effect in heard.effects:
        expected = own.sel(arm=f"vector × {effect.strength:g}")
        assert effect.mean == float(expected.effect) != 0
        assert (effect.low, effect.high) == (float(expected.effect_lo), float(expected.effect_hi))
    assert heard.sign.mean == float(own.upward.sel(way="vector"))
    assert (heard.sign.minus, heard.sign.plus, heard.sign.pairs) == (-1, 1, 2)
    assert (heard.control.mean, heard.control.interpretable) == (float(own.denominator), bool(own.defined))
    assert heard.words == "too few pairs to tell"
    assert (deaf.effects[0].mean, deaf.sign.pairs, deaf.control.pairs) == (None, 0, 0)
    assert not vector.checks and made.directions is vector.directions


def test_a_trial_is_not_repeated_and_is_kept_in_the_pack(
    study: Study, tiny: AceStep15, vector: Vector
) -> None:
    save_pack(study.path, "mine", vector)
    file = judge_pack(study, tiny, "mine", pairs=1)
    assert file == pack_file(study.path, "mine")
    first = load_vector(file)
    assert len(first.checks) == 1 and first.checks[0].pairs == 1
    (name,) = study.result_names()
    before = study.result(name)
    content = file.read_bytes()
    assert judge_pack(study, tiny, "mine", pairs=1).read_bytes() == content
    xr.testing.assert_identical(study.result(name), before)


def test_a_vector_that_cannot_be_judged_is_as_it_was(study: Study, tiny: AceStep15, vector: Vector) -> None:
    file = save_pack(study.path, "mine", replace(vector, checks=(check_of(),)))
    content = file.read_bytes()
    everything = study.spec.prompts.n_pairs("tempo")
    for options, words in (
        ({"pairs": everything}, "other prompts than"),
        ({"pairs": 1, "strengths": (-1.0,)}, "strength above 0"),
        ({"pairs": 1, "strengths": (1.0, 1.0)}, "given twice"),
    ):
        with pytest.raises(UserError, match=words):
            judge_pack(study, tiny, "mine", **options)
    save_pack(study.path, "other", replace(vector, concept="genre"))
    with pytest.raises(UserError, match="Unknown concept 'genre'"):
        judge_pack(study, tiny, "other", pairs=1)
    with pytest.raises(UserError, match="cannot be read"):
        judge_pack(study, tiny, "nowhere", pairs=1)
    assert file.read_bytes() == content and not study.result_names()


def test_names_of_packs_are_names_of_results() -> None:
    names = {name: trial_name(name) for name in ("mood", "Mood", "With Drums!", "a=b", "x" * 90, "x" * 91)}
    assert names["mood"] == "check-mood" and len(set(names.values())) == len(names)
    for name in names.values():
        SteeringSpec(name=name, concept="mood", positive="happy", negatives=("sad",))


def test_a_changed_vector_has_not_been_judged(vector: Vector) -> None:
    known = replace(vector, checks=(check_of(),))
    assert known.only(SITES) is known
    for changed in (
        known.over_time(),
        known.only(SITES[:1]),
        known.resampled(known.sigmas[:2]),
        stack([known]),
        *random_vectors(known, 1),
    ):
        assert not changed.checks


def test_a_check_says_if_both_signs_raise_the_score() -> None:
    check = check_of()
    other = check.effects[0].model_copy(update={"strength": -1.0, "mean": 0.2, "low": 0.1, "high": 0.3})
    both = check.model_copy(update={"effects": [other, *check.effects]})
    assert both.words == "+ raises the judge's score, but so does −"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (check_of(), "+ raises the judge's score"),
        (check_of(-0.4), "− raises the judge's score: inverted"),
        (check_of(0.05), "no clear effect"),
        (check_of(0.4, 0.05), "not interpretable: the judge does not tell the real prompts apart"),
        (check_of(0.4, 0.05, pairs=3), "too few pairs to tell"),
    ],
)
def test_a_check_says_one_thing(given: Check, words: str) -> None:
    assert given.words == words


def test_the_smallest_strengths_are_compared() -> None:
    assert compared([-2.0, 3.0, -0.5, 1.0]) == (-0.5, 1.0)
    assert compared([0.0, 2.0]) == (0.0, 2.0)
    assert compared([-1.0, -2.0]) == (-1.0, 0.0)
    assert compared([0.0]) is None


def test_the_sign_of_too_few_pairs_or_too_small_a_change_is_not_clear() -> None:
    assert sign_verdict(8, None, None, 1.0) == sign_verdict(8, 0.0, 0.1, 1.0) == "not clear"
    assert sign_verdict(1, 0.1, 0.2, 1.0) == "too few pairs to tell"
    assert sign_verdict(8, -0.009, -0.001, 1.0) == sign_verdict(8, 0.001, 0.2, -1.0) == "not clear"
    assert sign_verdict(8, -0.009, -0.001, 0.01) == sign_verdict(8, -0.009, -0.001, None) == "backwards"
    assert sign_verdict(8, 0.011, 0.2, 1.0) == "the right way"
