"""The built-in attributes, and what a wrong attribute set is told."""

import re
from pathlib import Path

import pytest
import yaml

from cache.errors import UserError
from workbench.prompts.attributes import AttributeSet, load_attributes
from workbench.prompts.wording import lowered, word_pattern

ATTRIBUTES = load_attributes()
NAMES = (
    "female", "male", "fast", "slow", "happy", "sad", "reggae", "metal", "opera", "jazz", "violin", "trumpet",
    "saxophone", "drums", "cello", "bongos", "flute", "maracas", "harmonica", "trombone", "xylophone",
)  # fmt: skip


def mutual(name: str) -> list[tuple[str, str]]:
    """The attribute's words whose counterparts are swapped back to them."""
    attribute = ATTRIBUTES.get(name)
    back = (
        ATTRIBUTES.get(attribute.counterfactual).swaps if attribute.counterfactual in ATTRIBUTES.names else {}
    )
    return [(word, target) for word, target in attribute.swaps.items() if back.get(target) == word]


def test_there_are_the_21_attributes() -> None:
    assert ATTRIBUTES.names == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_word_of_an_attribute_is_left_by_its_own_swap(name: str) -> None:
    attribute = ATTRIBUTES.get(name)
    words = {**attribute.also, **attribute.swaps}
    for word in words:
        assert not word_pattern(words).search(lowered(attribute.swapped(f"some {word} here, {word}"))), word


@pytest.mark.parametrize("name", NAMES)
def test_both_directions_know_each_other(name: str) -> None:
    attribute = ATTRIBUTES.get(name)
    if name == "harmonica":
        assert attribute.counterfactual == "harp"
        return
    other = ATTRIBUTES.get(attribute.counterfactual)
    assert other.counterfactual == name
    assert not set(attribute.swaps) & set(other.swaps)
    for target in attribute.swaps.values():
        assert word_pattern(other.swaps).search(lowered(target)), (
            f"{target} is no word of {attribute.counterfactual}"
        )
    # All but a few words come back: what has several names loses the rarer ones.
    assert len(mutual(name)) >= len(attribute.swaps) / 2


@pytest.mark.parametrize("name", NAMES)
def test_the_word_lists_are_lower_case_and_short(name: str) -> None:
    attribute = ATTRIBUTES.get(name)
    for words in (attribute.swaps, attribute.also, attribute.alone):
        for word, target in words.items():
            assert word == lowered(word) == word.strip()
            assert target == target.lower() == target.strip()
            assert len(word.split()) == len(target.split()) or name == "drums", f"{word}: {target}"


FRAMES = ("{a} {word} song", "Music: {word}.", "the {Word} sounds", "{WORD}-LIKE", "({word}, {word})")


@pytest.mark.parametrize("name", NAMES)
def test_swapping_back_restores(name: str) -> None:
    attribute = ATTRIBUTES.get(name)
    words = [word for word, _ in mutual(name) if word not in attribute.alone and word != "him"]
    assert words or name == "harmonica"
    for word in words:
        article = "an" if word[0] in "aeiou" and word != "euphoric" else "a"
        cases = {"word": word, "Word": word.capitalize(), "WORD": word.upper()}
        for caption in (frame.format(a=article, **cases) for frame in FRAMES):
            swapped = attribute.swapped(caption)
            assert swapped != caption
            assert ATTRIBUTES.get(attribute.counterfactual).swapped(swapped) == caption


@pytest.mark.parametrize(
    ("name", "caption", "swapped"),
    [
        (
            "female",
            "She plays her guitar. The crowd loves HER, and a soprano sings with her.",
            "He plays his guitar. The crowd loves HIM, and a tenor sings with him.",
        ),
        ("male", "His voice. A man by himself; it is his.", "Her voice. A woman by herself; it is hers."),
        ("fast", "A brisk, Fast-Paced tune, it speeds up", "An unhurried, Slow-Paced tune, it slows down"),
        ("happy", "An upbeat, joyful piece in a major key", "A downcast, sorrowful piece in a minor key"),
        ("drums", "Drum kit, drumsticks: a drummer drums", "Tenor saxophone, drumsticks: a saxophonist saxophones"),
        ("opera", "an operatic aria", "a jazzy blues"),
        ("jazz", "a jazzy tune, the blues", "an operatic tune, the aria"),
        ("harmonica", "a harmonica and two mouth organs", "a harp and two pedal harps"),
    ],
)  # fmt: skip
def test_captions(name: str, caption: str, swapped: str) -> None:
    assert ATTRIBUTES.get(name).swapped(caption) == swapped


def test_an_unknown_attribute_is_told_the_list() -> None:
    with pytest.raises(UserError, match=r"Unknown attribute 'kazoo'. Attributes: female, male, fast"):
        ATTRIBUTES.get("kazoo")


def test_words_of_a_counterfactual_that_is_no_attribute_are_the_counterparts() -> None:
    assert ATTRIBUTES.opposing_words("harmonica") >= {"harp", "harps", "pedal harp"}
    assert "snare drum" in ATTRIBUTES.opposing_words("saxophone")
    assert "drumming" in ATTRIBUTES.opposing_words("saxophone")


A = "counterfactual: b, text: t"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "at least one attribute"),
        (f"a: {{{A}, swaps: {{}}}}", "a.swaps must have at least 1"),
        (f"a: {{{A}}}", "a.swaps is missing"),
        (f"a: {{{A}, swaps: {{loud: ''}}}}", "must not be empty"),
        (f"a: {{{A}, swaps: {{loud: very LOUD}}}}", "'very LOUD' contains the attribute's own word 'loud'"),
        (
            f"a: {{{A}, swaps: {{loud: soft}}, also: {{big: loud}}}}",
            "'loud' contains the attribute's own word",
        ),
        (f"a: {{{A}, swaps: {{loud: soft}}, alone: {{big: small}}}}", "'big' is in `alone`, but neither"),
        (
            f"a: {{{A}, swaps: {{loud: soft}}, wrong: 1}}",
            "a.wrong is not a known name .known: counterfactual, text",
        ),
        (
            f"swaps: {{{A}, swaps: {{loud: soft}}, wrong: 1}}",
            "swaps.wrong is not a known name .known: counterfactual",
        ),
        (
            f"a: {{{A}, swaps: {{loud: soft}}}}\nb: {{counterfactual: a, text: t, swaps: {{soft: hard, loud: low}}}}",
            "'loud' is a word of a and of its counterfactual b",
        ),
        ("a: {", "not valid YAML"),
        ("- a", "it must be a mapping"),
    ],
)
def test_wrong_files_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "attributes.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as error:
        load_attributes(str(file))
    assert "\n" not in str(error.value)


def test_own_attributes_are_loaded_in_lower_case_without_spare_blanks(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("loud: {counterfactual: soft, text: loud, swaps: {'Very  LOUD ': 'rather  soft'}}")
    assert load_attributes(str(file)).get("loud").swaps == {"very loud": "rather soft"}


def test_the_documented_example_is_valid() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/counterfactual-pairs.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    attributes = AttributeSet.model_validate(yaml.safe_load(example))
    assert attributes.get("female choir").swapped("A women's choir; she leads") == "A men's choir; he leads"


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"Unknown attribute set 'nowhere.yaml'.*\(music\)"):
        load_attributes("nowhere.yaml")
