"""The prompts on which a vector of a descriptor is tried, and the judges of the trial."""

import numpy as np
import pytest

from analyses.steering import descriptor_pairs as module
from analyses.steering.descriptor_pairs import descriptor_pairs, is_descriptor
from analyses.steering.trials import _measuring
from analyses.steering_spec import SteeringSpec
from cache.errors import UserError
from workbench.studies.study import Study

SPEC = SteeringSpec(concept="brightness", positive="high", negatives=("low",), pairs=6)


@pytest.fixture
def study(planted_study: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of 40 prompts, whose brightness is their number; that of one clip of prompt 39 is unknown."""
    values = planted_study.clips["prompt_id"].to_numpy(float)
    values[np.flatnonzero(values == 39)[0]] = np.nan
    monkeypatch.setattr(module, "measured_values", lambda _, names: {names[0]: values})
    return planted_study


def prompts_of(study: Study, numbers: range) -> set[str]:
    return set(study.clips.loc[study.clips["prompt_id"].isin(numbers), "prompt"])


def test_new_prompts_are_steered_beside_those_with_most_of_it(study: Study) -> None:
    brightest = prompts_of(study, range(30, 40))
    left_out = sorted(prompts_of(study, range(10)))
    pairs = descriptor_pairs(study, SPEC.model_copy(update={"without": tuple(left_out)}))
    assert len(pairs) == 6
    assert {pair.clean.text for pair in pairs} <= brightest
    assert pairs[0].clean.text in prompts_of(study, range(39, 40))
    steered = [pair.corrupt.text for pair in pairs]
    assert len(set(steered)) == 6
    assert not set(steered) & (brightest | set(left_out))
    assert {pair.text for pair in pairs} == {"high brightness"}
    assert all(set(pair.corrupt.labels) == set(study.spec.prompts.concepts) for pair in pairs)


def test_where_the_brightest_are_steered_none_of_them_was_learnt_from(study: Study) -> None:
    learnt = prompts_of(study, range(35, 40))
    spec = SPEC.model_copy(update={"steered": "positive", "without": tuple(sorted(learnt))})
    pairs = descriptor_pairs(study, spec)
    assert {pair.clean.text for pair in pairs} <= prompts_of(study, range(30, 35))
    everything = spec.model_copy(update={"without": tuple(sorted(prompts_of(study, range(40))))})
    with pytest.raises(UserError, match="No prompt is left to try the vector of brightness on"):
        descriptor_pairs(study, everything)


def test_a_descriptor_is_one_only_if_no_concept_has_its_name(study: Study) -> None:
    assert is_descriptor(study.spec.prompts, "brightness")
    assert not is_descriptor(study.spec.prompts, "tempo")
    assert not is_descriptor(study.spec.prompts, "warmth")


def test_it_is_judged_by_what_measures_it_and_by_others_only_if_asked() -> None:
    assert _measuring(()) == _measuring("embedded") == _measuring(["descriptors"]) == ("descriptors",)
    assert _measuring(["embedded", "musicnn"]) == ("descriptors", "embedded", "musicnn")
