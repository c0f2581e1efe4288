"""Pairs from captions: which captions qualify, why the others do not, and the report."""

from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import UserError
from workbench.prompts.attributes import load_attributes
from workbench.prompts.counterfactuals import (
    Candidate,
    Reason,
    build_candidates,
    filter_pairs,
    kept_pairs,
    report,
    scorer_separation,
    summary,
)
from workbench.prompts.prompt_sets import Pair, Prompt
from workbench.prompts.wording import lowered, word_pattern
from workbench.scorers import load_scorer

ATTRIBUTES = load_attributes()


def reasons(caption: str, name: str, **options: object) -> list[Reason]:
    """Why each candidate that the caption gives for an attribute was kept or dropped."""
    return [each.reason for each in build_candidates([caption], ATTRIBUTES, [name], **options)]


def test_a_pair_has_texts_labels_and_the_scorers_text() -> None:
    (candidate,) = build_candidates(["A woman\n sings  slowly"], ATTRIBUTES, ["female"])
    assert candidate.pair == Pair(
        "female",
        Prompt("A woman sings slowly", {"female": "female"}),
        Prompt("A man sings slowly", {"female": "male"}),
        "female vocal",
    )
    assert (candidate.pair.clean_value, candidate.pair.corrupt_value) == ("female", "male")
    assert candidate.reason is Reason.KEPT


@pytest.mark.parametrize(
    ("caption", "name", "expected"),
    [
        ("a piano", "drums", []),
        ("two drumsticks", "drums", []),
        ("a bright piano", "happy", []),
        ("loud drums", "drums", [Reason.KEPT]),
        ("loud drums and a sax", "drums", [Reason.OPPOSING]),
        ("a harmonica and a harp", "harmonica", [Reason.OPPOSING]),
        ("a piano, no drums", "drums", [Reason.NEGATED]),
        ("a drum, but without drums", "drums", [Reason.NEGATED]),
        ("a drumbeat", "drums", [Reason.KEPT]),
        ("it goes drum machine", "drums", [Reason.KEPT]),
    ],
)
def test_which_captions_qualify(caption: str, name: str, expected: list[Reason]) -> None:
    assert reasons(caption, name) == expected


def own_attributes(swaps: dict[str, str]) -> object:
    """A set of one attribute "loud" with these swaps."""
    return type(ATTRIBUTES).model_validate(
        {"loud": {"counterfactual": "soft", "text": "loud", "swaps": swaps}}
    )


def test_alignment_by_words() -> None:
    attributes = own_attributes({"loud": "rather soft"})
    for alignment, reason in (("words", Reason.WORDS), ("tokens", Reason.WORDS), ("any", Reason.KEPT)):
        (candidate,) = build_candidates(["a loud horn"], attributes, alignment=alignment, tokenizer=str.split)
        assert candidate.reason is reason
        assert candidate.pair.corrupt.text == "a rather soft horn"


def test_alignment_by_tokens() -> None:
    captions = ["a loud horn", "a noisy horn"]
    attributes = own_attributes({"loud": "soft", "noisy": "silent"})
    by_letter = build_candidates(captions, attributes, alignment="tokens", tokenizer=list)
    assert [each.reason for each in by_letter] == [Reason.KEPT, Reason.TOKENS]
    by_word = build_candidates(captions, attributes, alignment="words", tokenizer=list)
    assert [each.reason for each in by_word] == [Reason.KEPT, Reason.KEPT]


def test_alignment_by_tokens_needs_a_tokenizer() -> None:
    with pytest.raises(UserError, match=r"needs a tokenizer. Give one, or align by words"):
        build_candidates(["a horn"], ATTRIBUTES, alignment="tokens")


def test_a_word_of_the_attribute_that_swapping_makes_is_found() -> None:
    attributes = own_attributes({"loud": "soft", "soft rock": "quiet folk"})
    (candidate,) = build_candidates(["loud rock"], attributes, alignment="any")
    assert candidate.pair.corrupt.text == "soft rock"
    assert candidate.reason is Reason.LEFT_OVER


def test_repeated_captions_and_the_limit() -> None:
    captions = ["a violin", "no violin", "a  violin ", "two violins", "three violins"]
    candidates = build_candidates(captions, ATTRIBUTES, ["violin"], limit=2)
    assert [each.reason for each in candidates] == [
        Reason.KEPT,
        Reason.NEGATED,
        Reason.REPEATED,
        Reason.KEPT,
        Reason.LIMIT,
    ]
    assert [pair.clean.text for pair in kept_pairs(candidates)] == ["a violin", "two violins"]


def test_the_limit_counts_each_attribute_by_itself() -> None:
    kept = kept_pairs(
        build_candidates(["a fast violin", "a fast fiddle"], ATTRIBUTES, ["fast", "violin"], limit=1)
    )
    assert [pair.concept for pair in kept] == ["fast", "violin"]


def test_an_unknown_attribute_is_told_the_list() -> None:
    with pytest.raises(UserError, match=r"Unknown attribute 'kazoo'. Attributes: female"):
        build_candidates(["a kazoo"], ATTRIBUTES, ["kazoo"])


vocabulary = sorted(
    {word for attribute in ATTRIBUTES.root.values() for word in (*attribute.swaps, *attribute.also)}
    | {"a", "an", "and", "no", "with", "song", "drumstick", "voice", "very", ",", "."}
)
captions = st.lists(st.sampled_from(vocabulary), min_size=1, max_size=8).map(" ".join)


@settings(deadline=None)
@given(captions, st.sampled_from(ATTRIBUTES.names))
def test_kept_pairs_hold_what_they_promise(caption: str, name: str) -> None:
    attribute = ATTRIBUTES.get(name)
    other = ATTRIBUTES.root.get(attribute.counterfactual)
    for pair in kept_pairs(build_candidates([caption], ATTRIBUTES, [name])):
        clean, corrupt = lowered(pair.clean.text), lowered(pair.corrupt.text)
        assert word_pattern(attribute.swaps).search(clean)
        assert not word_pattern(attribute.swaps).search(corrupt)
        assert len(clean.split()) == len(corrupt.split())
        if other is not None:
            assert not word_pattern(other.swaps).search(clean)
            assert word_pattern(other.swaps).search(corrupt)


# Filter


PAIRS = kept_pairs(
    build_candidates(["a violin", "two violins", "three violins", "a fiddle"], ATTRIBUTES, ["violin"])
)


def test_pairs_are_kept_above_the_margin() -> None:
    similarities = {
        "a violin": (0.6, 0.5),
        "two violins": (0.5, 0.25),
        "three violins": (0.2, 0.4),
        "a fiddle": (nan, 0.1),
    }
    calls = []

    def separation(clean: str, corrupt: str, text: str) -> tuple[float, float]:
        assert corrupt != clean
        assert text == "violin"
        return similarities[clean]

    candidates = filter_pairs(PAIRS, separation, 0.25, lambda done, total: calls.append((done, total)))
    assert [each.reason for each in candidates] == [
        Reason.NO_SEPARATION,  # by 0.1
        Reason.NO_SEPARATION,  # by 0.25, which is not more than the margin
        Reason.NO_SEPARATION,
        Reason.NO_SIMILARITY,
    ]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    candidates = filter_pairs(PAIRS, separation)
    assert kept_pairs(candidates) == PAIRS[:2]
    assert (candidates[1].clean_similarity, candidates[1].corrupt_similarity) == (0.5, 0.25)


def test_a_scorer_compares_both_texts_with_the_pairs_own() -> None:
    class Fake:
        name = "fake"
        identity = "fake"
        min_seconds = 0.0

        def check_texts(self, texts: object) -> None:
            raise AssertionError("no text is refused")

        def score(self, audio: object, sample_rate: int, texts: object) -> object:
            raise AssertionError("no audio is scored")

        def compare_texts(self, captions: list[str], texts: list[str]) -> np.ndarray:
            return np.array([[len(caption) / len(text) for text in texts] for caption in captions])

    assert scorer_separation(Fake())("four", "eighteen", "2c") == (2.0, 4.0)


def test_a_scorer_that_compares_audio_only_is_refused() -> None:
    with pytest.raises(UserError, match=r"'embedded' cannot compare texts. Use 'clap' or 'clap-laion'"):
        scorer_separation(load_scorer("embedded"))


# Report


def test_the_report_has_a_row_for_every_candidate() -> None:
    candidates = [Candidate(PAIRS[0], Reason.KEPT, 0.5, 0.25), Candidate(PAIRS[3], Reason.LIMIT)]
    table = report(candidates)
    assert table.iloc[0].to_dict() == {
        "original_feature": "violin",
        "counterfactual_feature": "trumpet",
        "clean_prompt": "a violin",
        "corrupted_prompt": "a trumpet",
        "kept": True,
        "reason": "kept",
        "clean_similarity": 0.5,
        "corrupted_similarity": 0.25,
    }
    assert table["reason"].tolist() == ["kept", "the attribute already has enough pairs"]
    assert np.isnan(table["clean_similarity"][1])
    assert len(report([])) == 0


def test_the_summary_counts_attributes_and_reasons() -> None:
    captions = ["a fast violin", "no fast violin", "two violins", "violin and trumpet", "violins, trumpets"]
    lines = summary(report(build_candidates(captions, ATTRIBUTES, ["violin", "fast"]))).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["attribute", "candidates", "kept"],
        ["violin", "5", "3"],
        ["fast", "2", "1"],
        ["all", "7", "4"],
    ]
    assert lines[4:] == [
        "2 dropped: the caption also has a word of the counterfactual attribute",
        "1 dropped: the caption negates the attribute",
    ]
    assert summary(report([])).splitlines()[-1].split() == ["all", "0", "0"]


def test_the_summary_of_all_attributes_fits_a_screen() -> None:
    captions = [f"{word}" for attribute in ATTRIBUTES.root.values() for word in attribute.swaps]
    lines = summary(report(build_candidates(captions, ATTRIBUTES, limit=3))).splitlines()
    assert len(lines) <= 21 + 2 + len(Reason)
    assert max(map(len, lines)) <= 80
