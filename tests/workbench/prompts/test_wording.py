"""Words are swapped whole, at once, and with the sentence's capitals and articles."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.prompts.wording import is_negated, lowered, swap_words

WORDS = ("slow", "fast", "drum", "snare drum", "upbeat", "sad")
SWAPS = {"slow": "fast", "fast": "slow", "snare drum": "alto saxophone", "drum": "saxophone", "upbeat": "sad"}


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("drumsticks, drummers and a conundrum", "drumsticks, drummers and a conundrum"),
        ("a drum, a snare drum.", "a saxophone, an alto saxophone."),
        ("a drum-driven song", "a saxophone-driven song"),
        ("the drum's sound", "the saxophone's sound"),
        ("Slow Snare Drum / SLOW / Snare drum", "Fast Alto Saxophone / FAST / Alto saxophone"),
        ("An upbeat song, AN UPBEAT ONE, an upbeat one", "A sad song, A SAD ONE, a sad one"),
        ("A snare drum. A SNARE DRUM", "An alto saxophone. AN ALTO SAXOPHONE"),
        ("an odd drum, a very upbeat song", "an odd saxophone, a very sad song"),
        ("mama drum", "mama saxophone"),
        ("", ""),
    ],
)
def test_swaps(text: str, swapped: str) -> None:
    assert swap_words(text, SWAPS) == swapped


def test_all_words_are_replaced_at_once() -> None:
    assert swap_words("a b c", {"a": "b", "b": "c", "c": "a"}) == "b c a"


@pytest.mark.parametrize(
    ("word", "article"),
    [
        ("hour", "an"), ("honest", "an"), ("house", "a"), ("unusual", "an"), ("unhurried", "an"), ("unique", "a"),
        ("ukulele", "a"), ("European", "a"), ("one-man", "a"), ("on-beat", "an"), ("utopian", "a"), ("utter", "an"),
        ("useful", "a"), ("eerie", "an"), ("quick", "a"),
    ],
)  # fmt: skip
def test_the_article_follows_the_sound(word: str, article: str) -> None:
    assert swap_words("an upbeat song", {"upbeat": word}) == f"{article} {word} song"
    assert swap_words("a slow song", {"slow": word}) == f"{article} {word} song"


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("her voice", "his voice"),
        ("Her soft voice", "His soft voice"),
        ("for her.", "for him."),
        ("a choir behind her and a band", "a choir behind him and a band"),
        ("the band follows her", "the band follows him"),
        ("her android", "his android"),
    ],
)
def test_a_word_that_no_noun_follows_has_another_counterpart(text: str, swapped: str) -> None:
    assert swap_words(text, {"her": "his"}, {"her": "him"}) == swapped


@pytest.mark.parametrize(
    ("text", "negated"),
    [
        ("no drum", True), ("without any drum", True), ("There isn't a drum", True), ("non-drum", True),
        ("not too drum", True), ("piano drum", False), ("no piano, drum", False), ("a casino drum", False),
        ("drum without", False),
    ],
)  # fmt: skip
def test_negation(text: str, negated: bool) -> None:
    low = lowered(text)
    assert is_negated(low, low.index("drum")) is negated


# Among them letters whose lower or upper case is several letters, or another letter's.
letters = st.text(st.sampled_from("bßſıİKéÄ '’-.,\n"), max_size=12)


@settings(deadline=None)
@given(st.text())
def test_lowered_text_keeps_every_position(text: str) -> None:
    assert len(lowered(text)) == len(text)


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(WORDS), letters), max_size=8))
def test_text_outside_the_words_is_untouched(parts: list[str]) -> None:
    assert swap_words("/".join(parts), SWAPS) == "/".join(SWAPS.get(part, part) for part in parts)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(("a", "an", "very", "slow", "fast", "Slow", "FAST", "upright", "slowly")), max_size=12
    )
)
def test_swapping_twice_restores(words: list[str]) -> None:
    correct = re.sub(r"\ban (?=slow|fast)", "a ", " ".join(words), flags=re.IGNORECASE)
    swaps = {"slow": "fast", "fast": "slow"}
    assert swap_words(swap_words(correct, swaps), swaps) == correct
