"""A random ACE-Step 1.5 pipeline small enough for tests: two blocks, width 32, 16 kHz mono."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from tests.tiny_vae import LATENT_CHANNELS, tiny_vae

WIDTH = 32
WORDS = (
    *("a", "the", "song", "slow", "fast", "happy", "sad", "violin", "flute"),
    *("with", "without", "drums", "caption", "duration", "seconds", "en"),
)


TRANSFORMER = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "in_channels": 3 * LATENT_CHANNELS,
    "audio_acoustic_hidden_dim": LATENT_CHANNELS,
    "patch_size": 2,
    "sliding_window": 4,
    "encoder_hidden_size": WIDTH,
}


def save_tiny_pipeline(folder: Path, **changes: Any) -> Path:
    """Write a pipeline folder with random weights; `changes` modify the transformer's configuration."""
    torch.manual_seed(0)
    transformer = AceStepTransformer1DModel(**(TRANSFORMER | changes))
    condition_encoder = AceStepConditionEncoder(
        hidden_size=WIDTH,
        intermediate_size=64,
        text_hidden_dim=WIDTH,
        timbre_hidden_dim=LATENT_CHANNELS,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    condition_encoder.silence_latent.normal_()
    vae = tiny_vae(audio_channels=1)
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(WORDS) + 2,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    pipeline = AceStepPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_tokenizer(),
        transformer=transformer,
        condition_encoder=condition_encoder,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )
    pipeline.save_pretrained(folder)
    index = folder / "model_index.json"  # the class is saved under a name that the loader does not know
    index.write_text(index.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", padding_side="right"
    )
