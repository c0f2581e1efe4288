"""The text path: no mixing of words, and every kind of word in its own subspace."""

import pytest
import torch
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from transformers import PreTrainedTokenizerFast, Qwen3Model

from benchmarks.organisms.text import (
    SUBSPACES,
    TEXT_CHANNELS,
    clock,
    make_condition_encoder,
    make_text_encoder,
    word_embeddings,
)
from benchmarks.organisms.vocabulary import SYNONYMS, make_tokenizer
from tests.tolerances import assert_close


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="module")
def text_encoder(tokenizer: PreTrainedTokenizerFast) -> Qwen3Model:
    return make_text_encoder(tokenizer, seed=0)


@pytest.fixture(scope="module")
def condition_encoder() -> AceStepConditionEncoder:
    return make_condition_encoder(torch.linspace(-1, 1, 32), seed=0)


def outside(space: str) -> torch.Tensor:
    mask = torch.ones(TEXT_CHANNELS, dtype=torch.bool)
    mask[SUBSPACES[space]] = False
    return mask


def test_subspaces_tile_the_channels() -> None:
    channels = [channel for space in SUBSPACES.values() for channel in range(space.start, space.stop)]
    assert channels == list(range(TEXT_CHANNELS))


def test_every_word_has_unit_mean_square_in_one_subspace(tokenizer: PreTrainedTokenizerFast) -> None:
    table = word_embeddings(tokenizer, seed=0)
    torch.testing.assert_close(table.square().mean(1), torch.ones(len(table)))
    concept_words = set()
    for concept, values in SYNONYMS.items():
        for word in (word for words in values.values() for word in words):
            concept_words.add(word)
            assert not table[tokenizer.convert_tokens_to_ids(word)][outside(concept)].any()
    for word, token in tokenizer.get_vocab().items():
        if word not in concept_words:
            assert not table[token][outside("neutral")].any()


def test_synonyms_are_near_and_other_values_far(tokenizer: PreTrainedTokenizerFast) -> None:
    table = word_embeddings(tokenizer, seed=0) / TEXT_CHANNELS**0.5
    word = {
        name: table[tokenizer.convert_tokens_to_ids(name)]
        for name in ("slow", "calm", "fast", "violin", "flute")
    }
    assert word["slow"] @ word["calm"] > 0.8
    assert word["slow"] @ word["fast"] < 0.5
    assert word["violin"] @ word["flute"] < 0.5


def test_a_words_encoding_does_not_depend_on_its_neighbours(
    tokenizer: PreTrainedTokenizerFast, text_encoder: Qwen3Model
) -> None:
    def encode(text: str) -> torch.Tensor:
        with torch.no_grad():
            return text_encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]

    here, there = encode("a fast violin song"), encode("a slow violin song")
    assert torch.equal(here[[0, 2, 3]], there[[0, 2, 3]])
    difference = here[1] - there[1]
    assert difference[SUBSPACES["tempo"]].any()
    assert not difference[outside("tempo")].any()


def test_lyrics_speak_in_the_neutral_subspace_and_are_deaf_to_concepts(
    text_encoder: Qwen3Model, tokenizer: PreTrainedTokenizerFast, condition_encoder: AceStepConditionEncoder
) -> None:
    def lyrics(text: str) -> torch.Tensor:
        tokens = tokenizer(text, return_tensors="pt").input_ids
        embedded = text_encoder.get_input_embeddings()(tokens)
        return condition_encoder.lyric_encoder(embedded, torch.ones_like(tokens))

    assert torch.equal(lyrics("sing a happy verse"), lyrics("sing a sad verse"))
    assert not torch.equal(lyrics("sing a happy verse"), lyrics("sing a happy chorus"))
    assert not lyrics("sing a happy verse")[..., outside("neutral")].any()


def test_timbre_speaks_in_the_neutral_subspace(condition_encoder: AceStepConditionEncoder) -> None:
    reference = torch.randn(1, 50, 32, generator=torch.Generator().manual_seed(0))
    timbre, _ = condition_encoder.timbre_encoder(reference, torch.zeros(1, dtype=torch.long))
    assert timbre.any()
    assert not timbre[..., outside("neutral")].any()


def test_the_null_embedding_has_a_subspace_of_its_own(condition_encoder: AceStepConditionEncoder) -> None:
    null = condition_encoder.null_condition_emb[0, 0]
    assert null[SUBSPACES["null"]].any()
    assert not null[outside("null")].any()


def test_the_clock_tells_every_frame_of_eighty_from_every_other(
    condition_encoder: AceStepConditionEncoder,
) -> None:
    marks = clock(160)
    assert torch.cdist(marks[:80], marks[:80]).add(10 * torch.eye(80)).min() > 0.05
    assert_close(marks[:80], marks[80:])
    silence = torch.linspace(-1, 1, 32)
    latent = condition_encoder.silence_latent[0, :160]
    torch.testing.assert_close(latent[:, :8], silence[:8] + marks)
    assert torch.equal(latent[:, 8:], silence[8:].expand(160, -1))
