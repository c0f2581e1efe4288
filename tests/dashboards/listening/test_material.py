"""Clips of a steering result: which arms are compared, under which names, with which reference."""

import pytest

from cache.errors import UserError
from tests.dashboards.synthetic_steering import NEGATIVE, PAIRS, POSITIVE, STRENGTHS, VECTOR
from workbench.listening.material import REAL, UNSTEERED, from_result
from workbench.listening.request import ListeningRequest
from workbench.studies.study import Study


@pytest.fixture
def result(study: Study) -> str:
    return next(name for name in study.result_names() if study.result_attributes(name)["kind"] == "steering")


def test_arms_of_a_prompt_become_conditions(study: Study, result: str) -> None:
    material = from_result(study, result, ListeningRequest(items=PAIRS - 1, ways=VECTOR, strengths=(1, 2)))
    assert material.conditions == (UNSTEERED, f"{VECTOR} × 1", f"{VECTOR} × 2", REAL)
    assert len(material.items) == PAIRS - 1
    assert material.training not in material.items  # of the pair that is left
    audio = study.result(result)["audio"]
    for pair, item in enumerate(material.items):
        arms = {UNSTEERED: "corrupt", REAL: "clean", f"{VECTOR} × 2": f"{VECTOR} × 2"}
        for condition, arm in arms.items():
            file = audio.sel(pair=pair, seed=0, arm=arm).item()
            assert item.clips[condition].path == study.path / file
        assert item.reference == item.clips[UNSTEERED]
        assert item.text == study.spec.prompts.concepts["tempo"][POSITIVE].text


def test_clips_that_are_steered_away_are_asked_for_the_negative_value(
    study: Study, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = study.result(result).assign_attrs(spec='{"steered": "positive"}')
    monkeypatch.setattr(Study, "result", lambda self, name: away)
    text = study.spec.prompts.concepts["tempo"][NEGATIVE].text
    assert from_result(study, result, ListeningRequest()).items[0].text == text


def test_all_ways_and_strengths_are_compared_but_no_nulls(study: Study, result: str) -> None:
    material = from_result(study, result, ListeningRequest(reference=REAL))
    assert len(material.conditions) == 2 + 1 + len(STRENGTHS)
    assert not any("random" in name for name in material.conditions)
    assert material.items[0].reference == material.items[0].clips[REAL]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"ways": "none"}, "No way of steering is called 'none'"),
        ({"strengths": (7,)}, "No clip has the strength 7"),
    ],
)
def test_unknown_ways_and_strengths_are_refused(
    study: Study, result: str, asked: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        from_result(study, result, ListeningRequest(**asked))


def test_other_results_are_refused(study: Study) -> None:
    with pytest.raises(UserError, match="not a result of steering"):
        from_result(study, "probes", ListeningRequest())
