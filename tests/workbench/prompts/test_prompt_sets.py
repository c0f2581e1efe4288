"""Prompt sets: fillings, counterfactual pairs, and what a wrong file is told."""

from pathlib import Path

import pytest

from cache.errors import UserError
from workbench.prompts.prompt_sets import PromptSet, load_prompt_set


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


@pytest.mark.parametrize("n_moods", [2, 3, 4])
def test_reverses_of_pairs_come_last(n_moods: int) -> None:
    moods = {name: name for name in ("happy", "sad", "calm", "tense")[:n_moods]}
    tempos = {name: name for name in ("slow", "fast", "steady")}
    prompts = PromptSet(templates=["a {tempo} {mood} song"], concepts={"tempo": tempos, "mood": moods})
    total = prompts.n_pairs("tempo")
    assert total == 6 * n_moods
    for seed in range(5):
        every = prompts.pairs("tempo", total, seed)
        sides = [frozenset((pair.clean.text, pair.corrupt.text)) for pair in every]
        assert len(set(sides[: total // 2])) == total // 2
        assert len({(pair.clean.text, pair.corrupt.text) for pair in every}) == total
        assert prompts.pairs("tempo", total // 2, seed) == every[: total // 2]


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
    with pytest.raises(UserError, match=f"from 1 to 56 for this prompt set; got {n}"):
        organism.fill(n, seed=0)


def test_unknown_concept(organism: PromptSet) -> None:
    with pytest.raises(
        UserError,
        match=r"Unknown concept 'genre'. Concepts of this prompt set: instrument, tempo, mood, drums",
    ):
        organism.pairs("genre", 1, seed=0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("templates: []\nconcepts: {a: {x: x, y: y}}", "templates must have at least 1 entry"),
        ("templates: ['a {b} song']\nconcepts: {a: {x: x, y: y}}", "each a concept of the file"),
        ("templates: ['a song']\nconcepts: {a: {x: x, y: y}}", "must have slots"),
        ("templates: ['{a}']\nconcepts: {a: {x: x}}", "at least two values"),
        ("templates: ['{a}'", "not valid YAML in line"),
        ("", "is empty"),
        ("- a", "it must be a mapping"),
        ("templates: '{a}'\nconcepts: {a: {x: x, y: y}}", "templates must be a list, not '{a}'"),
        ("templates: ['{a}']\nconcepts: {a: [x, y]}", "concepts.a must be a mapping .*, not a list"),
        ("templates: ['{a}']\nconcepts: {a: {x: {phrase: x}, y: y}}", "concepts.a.x.text is missing"),
        ("templates: ['{a}']\nconcepts: {a: {x: [x], y: y}}", "concepts.a.x must be a mapping"),
        ("templates: ['{a}']\nconcepts: {a: {x: x, y: y}}\nextra: x", "extra is not a known name"),
        (
            "templates: ['{a}']\nconcepts: {a: {x: x, y: y}}\ndescriptors: [warmth]",
            "descriptors: there is no descriptor 'warmth': use level.*onset_rate",
        ),
        (
            "templates: ['{a}']\nconcepts: {a: {x: x, y: y}}\ndescriptors: [mode, mode]",
            "descriptors: 'mode' is given twice",
        ),
        (
            "templates: ['{tempo}']\nconcepts: {tempo: {x: x, y: y}}\ndescriptors: [tempo]",
            "'tempo' is a concept and a descriptor: rename the concept",
        ),
        (
            "templates: ['{a}']\nconcepts: {a: {x: z, y: z}}",
            "values x and y of concept 'a' must have different phrases; both have 'z'",
        ),
        (
            "templates: ['{a}']\nconcepts: {a: {x: a b, y: ' a  b'}}",
            "x and y of concept 'a' must have different phrases",
        ),
        ("templates: ['{a}']\nconcepts: {a: {x: '', y: ''}}", "must have different phrases; both have ''"),
        ('templates: [\'{a}\']\nconcepts: {a: {x: "e\\u0301", y: "\\xE9"}}', "must have different phrases"),
        (
            "templates: ['a {a}', 'a  {a}']\nconcepts: {a: {x: x, y: y}}",
            "the template 'a  {a}' is duplicated",
        ),
        ("templates: ['{a} {']\nconcepts: {a: {x: x, y: y}}", "has a single '{': write {{"),
        ("templates: ['{a} }']\nconcepts: {a: {x: x, y: y}}", "has a single '}': write }}"),
        ("templates: ['{a!r}']\nconcepts: {a: {x: x, y: y}}", "each a concept of the file"),
        ("templates: ['{}']\nconcepts: {'': {x: x, y: y}}", "must not be empty or contain braces; got ''"),
        ("templates: ['{a}']\nconcepts: {a: {'': x, y: y}}", "a value without a name"),
        (
            'templates: ["{a}"]\nconcepts: {"a\\nb": {x: x, y: y}}',
            r"the name of a concept must be one line of text .* got 'a\\nb'",
        ),
        ('templates: ["{a}"]\nconcepts: {a: {"x\\tx": x, y: y}}', "the name of a value must be one line"),
        (
            f"templates: ['{{a}}']\nconcepts: {{{'a' * 201}: {{x: x, y: y}}}}",
            "at most 200 characters, not 201",
        ),
    ],
)
def test_wrong_files_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as error:
        load_prompt_set(str(file))
    assert "\n" not in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"Unknown prompt set 'nowhere.yaml'.*\(organism\)"):
        load_prompt_set("nowhere.yaml")


@pytest.mark.parametrize(
    "name", ["tempo.bpm", "808", "a[0]", "mood!", "mood!r", "key:minor", "a: >3", "r&b/soul", "0"]
)
def test_any_name_is_a_plain_key(name: str) -> None:
    """A dot, a number or brackets are no fields of a value, and ! and : are no formats."""
    values = {"one": "{violin}", "two": "flute %s"}
    prompts = PromptSet.model_validate(
        {"templates": [f"a {{{name}}} {{{{song}}}}"], "concepts": {name: values}}
    )
    assert {prompt.text for prompt in prompts.fill(2, seed=0)} == {"a {violin} {song}", "a flute %s {song}"}
    (pair,) = prompts.pairs(name, 1, seed=0)
    assert {pair.clean_value, pair.corrupt_value} == {"one", "two"}


def test_names_that_yaml_reads_as_truth_and_numbers_stay_text(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(
        "templates: ['{x}']\nconcepts: {x: {yes: 80s, no: 1990, on: 1e3, 0x10: 2020-01-01, off: true}}"
    )
    values = load_prompt_set(str(file)).concepts["x"]
    assert {name: value.phrase for name, value in values.items()} == {
        "yes": "80s",
        "no": "1990",
        "on": "1e3",
        "0x10": "2020-01-01",
        "off": "true",
    }
    assert values["no"].text == "no"


def test_fillings_with_one_text_are_refused() -> None:
    """They would stand on both sides of held-out folds, as if they were different."""
    prompts = PromptSet.model_validate(
        {
            "templates": ["{pace} {kind}"],
            "concepts": {
                "pace": {"slow": "slow", "sad": "slow sad"},
                "kind": {"song": "song", "sad": "sad song"},
            },
        }
    )
    with pytest.raises(UserError, match="the same prompt, 'slow sad song'"):
        prompts.fill(4, seed=0)
    swapped = PromptSet.model_validate(
        {
            "templates": ["a {one} song", "a {two} song"],
            "concepts": {"one": {"x": "x", "y": "y"}, "two": {"x": "x", "z": "z"}},
        }
    )
    with pytest.raises(UserError, match="the same prompt, 'a x song'"):
        swapped.fill(4, seed=0)


def test_pairs_with_the_same_texts_are_refused() -> None:
    prompts = PromptSet.model_validate(
        {
            "templates": ["{pace} {who}", "{pace} {what}"],
            "concepts": {
                "pace": {"slow": "slow", "fast": "fast"},
                "who": {"violin": "violin", "flute": "flute"},
                "what": {"violin": "violin", "song": "song"},
            },
        }
    )
    with pytest.raises(UserError, match="Two pairs of pace have the same texts"):
        prompts.pairs("pace", 8, seed=0)


def test_a_prompt_set_is_not_written_out() -> None:
    values = {str(number): str(number) for number in range(7)}

    def prompt_set(n: int) -> PromptSet:
        names = [f"c{number}" for number in range(n)]
        template = " ".join(f"{{{name}}}" for name in names)
        return PromptSet.model_validate({"templates": [template], "concepts": dict.fromkeys(names, values)})

    assert prompt_set(6).n_prompts == 7**6
    assert len(prompt_set(6).fill(3, seed=0)) == 3
    with pytest.raises(ValueError, match="there must be at most 10,000,000 prompts; there are 40,353,607"):
        prompt_set(9)
    with pytest.raises(ValueError, match="at most 10,000,000 pairs"):
        prompt_set(8)
