"""Prompt sets: fillings, counterfactual pairs, and what a wrong file is told."""

from pathlib import Path

import pytest

from cache.errors import UserError
from workbench.prompts import PromptSet, load_prompt_set


@pytest.fixture(scope="module")
def organism() -> PromptSet:
    return load_prompt_set("organism")


def test_fillings_are_different_and_labelled(organism: PromptSet) -> None:
    prompts = organism.fill(56, seed=3)
    assert len({prompt.text for prompt in prompts}) == 56
    for prompt in prompts:
        assert set(prompt.labels) == {"instrument", "tempo", "mood", "drums"}
        assert all(
            organism.concepts[concept][value].phrase in prompt.text
            for concept, value in prompt.labels.items()
        )


def test_fillings_follow_the_seed(organism: PromptSet) -> None:
    assert organism.fill(10, seed=1) == organism.fill(10, seed=1)
    assert organism.fill(10, seed=1) != organism.fill(10, seed=2)


@pytest.mark.parametrize("concept", ["instrument", "tempo", "mood", "drums"])
def test_pairs_differ_in_their_concept_only(organism: PromptSet, concept: str) -> None:
    pairs = organism.pairs(concept, 20, seed=0)
    assert len({(pair.clean.text, pair.corrupt.text) for pair in pairs}) == 20
    for pair in pairs:
        different = {
            name for name in pair.clean.labels if pair.clean.labels[name] != pair.corrupt.labels[name]
        }
        assert different == {concept}
        assert pair.text == pair.clean_value
        clean, corrupt = (
            organism.concepts[concept][value].phrase for value in (pair.clean_value, pair.corrupt_value)
        )
        assert pair.clean.text.replace(clean, corrupt) == pair.corrupt.text


def test_pairs_take_both_directions_alike(organism: PromptSet) -> None:
    values = [pair.clean_value for pair in organism.pairs("tempo", 8, seed=0)]
    assert sorted(values) == ["fast"] * 4 + ["slow"] * 4


def test_a_concept_that_a_template_leaves_out_has_no_label() -> None:
    prompts = PromptSet.model_validate(
        {
            "templates": ["a {mood} song", "music with {lead}"],
            "concepts": {
                "mood": {"happy": "happy", "sad": "sad"},
                "lead": {"violin": {"phrase": "a fiddle", "text": "violin"}, "flute": "flute"},
            },
        }
    )
    by_text = {prompt.text: prompt.labels for prompt in prompts.fill(4, seed=0)}
    assert by_text["music with a fiddle"] == {"mood": "", "lead": "violin"}
    assert prompts.pairs("lead", 2, seed=0)[0].text in ("violin", "flute")


@pytest.mark.parametrize("n", [0, 57])
def test_too_many_or_no_prompts(organism: PromptSet, n: int) -> None:
    with pytest.raises(UserError, match=f"{n} prompts were asked for, but this prompt set has 1 to 56"):
        organism.fill(n, seed=0)


def test_unknown_concept(organism: PromptSet) -> None:
    with pytest.raises(
        UserError, match="Unknown concept 'genre': this prompt set has instrument, tempo, mood, drums"
    ):
        organism.pairs("genre", 1, seed=0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("templates: []\nconcepts: {a: {x: x, y: y}}", "templates"),
        ("templates: ['a {b} song']\nconcepts: {a: {x: x, y: y}}", "each a concept of the file"),
        ("templates: ['a song']\nconcepts: {a: {x: x, y: y}}", "must have slots"),
        ("templates: ['{a}']\nconcepts: {a: {x: x}}", "at least two values"),
        ("templates: ['{a}'", "not valid YAML"),
        ("", "wrong at"),
    ],
)
def test_wrong_files_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as error:
        load_prompt_set(str(file))
    assert "\n" not in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"no prompt set 'nowhere.yaml'.*\(organism\)"):
        load_prompt_set("nowhere.yaml")
