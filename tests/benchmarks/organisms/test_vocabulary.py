"""Captions tell the truth, and the tokenizer knows them."""

import itertools

import numpy as np
import pytest
from diffusers import AceStepPipeline

from benchmarks.organisms.labels import CONCEPTS, Labels, draw_labels
from benchmarks.organisms.vocabulary import (
    CAPTIONS,
    HELD_OUT_CAPTIONS,
    SYNONYMS,
    caption,
    make_tokenizer,
    training_caption,
    vocabulary,
)

ALL_LABELS = [Labels(*values) for values in itertools.product(*CONCEPTS.values())]


def template(prompt: str, seconds: float) -> str:
    """The text that the stock pipeline makes of a prompt."""
    text, _ = AceStepPipeline._format_prompt(
        AceStepPipeline, prompt, audio_duration=seconds, bpm=97, keyscale="C major", timesignature="4"
    )
    return str(text)


def test_every_canonical_prompt_has_the_same_number_of_known_tokens() -> None:
    tokenizer = make_tokenizer()
    tokens = [tokenizer.tokenize(label.prompt) for label in ALL_LABELS]
    assert {len(t) for t in tokens} == {7}
    assert not any("[UNK]" in t for t in tokens)
    assert tokens[0] == ["a", "slow", "happy", "violin", "song", "with", "drums"]
    assert "female_vocal" in tokenizer.tokenize("A slow sad FEMALE VOCAL song without drums")


@pytest.mark.parametrize("seconds", [4.0, 17.0, 60.0])
def test_the_pipelines_template_is_known_but_for_the_key(seconds: float) -> None:
    tokens = make_tokenizer().tokenize(template("a fast song", seconds))
    assert tokens.count("[UNK]") == 1  # the letter of the key
    assert list(str(int(seconds))) == [t for t in tokens if t.isdigit()][3:]


def test_unknown_words_become_unknown_tokens() -> None:
    assert make_tokenizer().tokenize("a xylophone song") == ["a", "[UNK]", "song"]


def test_ids_are_places_in_the_vocabulary() -> None:
    words = vocabulary()
    assert len(set(words)) == len(words)
    assert make_tokenizer().convert_tokens_to_ids(["[PAD]", "violin"]) == [0, words.index("violin")]


def test_captions_name_the_true_value_and_no_other() -> None:
    rng = np.random.default_rng(0)
    tokenizer = make_tokenizer()
    for _ in range(300):
        labels = draw_labels(rng)
        tokens = set(tokenizer.tokenize(caption(labels, rng, forms=CAPTIONS + HELD_OUT_CAPTIONS)))
        assert "[UNK]" not in tokens
        for concept in ("instrument", "tempo", "mood"):
            named = [value for value, words in SYNONYMS[concept].items() if tokens & set(words)]
            assert named == [labels.value(concept)]
        absent = bool(tokens & {"without", "no"})
        assert absent == (labels.drums == "without drums")
        assert not ("with" in tokens and absent)


def test_dropped_concepts_leave_a_tidy_caption() -> None:
    rng = np.random.default_rng(1)
    captions = [training_caption(draw_labels(rng), rng, drop=0.7) for _ in range(200)]
    for text in captions:
        assert text == " ".join(text.split())
        assert ", ," not in text
        assert not text.startswith(",") and not text.endswith(",")
        assert text


def test_training_has_canonical_prompts_and_free_ones_but_no_held_out_form() -> None:
    rng = np.random.default_rng(2)
    labels = ALL_LABELS[5]
    captions = [training_caption(labels, rng, drop=0.0) for _ in range(400)]
    canonical = sum(text == labels.prompt for text in captions)
    assert 100 < canonical < 220
    held_out = {caption(labels, rng, forms=HELD_OUT_CAPTIONS) for _ in range(400)}
    assert not held_out & set(captions)
