"""A random AudioLDM 2 pipeline small enough for tests: eight blocks of two widths and two token counts, 16 kHz mono."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    DDIMScheduler,
)
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LATENT_CHANNELS = 4
MEL_BINS = 8
GENERATED_WIDTH = 16
GENERATED_TOKENS = 3
TEXT_WIDTH = 32
WORDS = (
    *("a", "the", "song", "slow", "fast", "happy", "sad", "violin", "flute"),
    *("with", "without", "drums", "low", "quality"),
)
UNET: dict[str, Any] = {
    "block_out_channels": (16, 24),
    "layers_per_block": 1,
    "sample_size": 8,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": ((None, GENERATED_WIDTH, TEXT_WIDTH, None),) * 2,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
PUBLISHED_UNET: dict[str, Any] = {
    "block_out_channels": (128, 256, 384, 640),
    "layers_per_block": 2,
    "sample_size": 256,
    "in_channels": 8,
    "out_channels": 8,
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
    "cross_attention_dim": ((None, 768, 1024, None),) * 4,
    "transformer_layers_per_block": 2,
    "attention_head_dim": 8,
}
"""The large model's configuration, as far as it determines the shapes of blocks."""


def save_tiny_pipeline(folder: Path, bare_language_model: bool = True, **changes: Any) -> Path:
    """Write a pipeline folder with random weights; `changes` modify the UNet's configuration.

    The language model is saved bare, as in the published folders, or with its language-modelling head.
    """
    torch.manual_seed(0)
    unet = AudioLDM2UNet2DConditionModel(**(UNET | changes))
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.4,
    )
    language = GPT2Config(
        n_embd=GENERATED_WIDTH,
        n_head=2,
        n_layer=2,
        n_positions=128,
        vocab_size=4,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    language.max_new_tokens = GENERATED_TOKENS
    pipeline = AudioLDM2Pipeline(
        vae=vae,
        text_encoder=_clap(),
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=len(WORDS) + 3, d_model=TEXT_WIDTH, d_ff=32, d_kv=8, num_heads=2, num_layers=1
            )
        ),
        projection_model=AudioLDM2ProjectionModel(
            text_encoder_dim=16, text_encoder_1_dim=TEXT_WIDTH, langauge_model_dim=GENERATED_WIDTH
        ),
        language_model=(GPT2Model if bare_language_model else GPT2LMHeadModel)(language),
        tokenizer=_characters(),
        tokenizer_2=_words(),
        feature_extractor=ClapFeatureExtractor(),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.0015,
            beta_end=0.0195,
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
        ),
        vocoder=SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=MEL_BINS,
                sampling_rate=16000,
                upsample_initial_channel=8,
                upsample_rates=[16, 10],
                upsample_kernel_sizes=[32, 20],
                resblock_kernel_sizes=[3],
                resblock_dilation_sizes=[[1, 3]],
                initializer_range=0.2,
                normalize_before=False,
            )
        ),
    )
    pipeline.save_pretrained(folder)
    return folder


def _clap() -> ClapModel:
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "vocab_size": 261,
        "max_position_embeddings": 80,
        "initializer_factor": 1.0,
    }
    audio = {
        "spec_size": 64,
        "window_size": 4,
        "num_mel_bins": 64,
        "intermediate_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 1],
        "num_hidden_layers": 2,
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "patch_size": 2,
        "patch_stride": 2,
    }
    return ClapModel(
        ClapConfig(
            text_config={**text, "projection_dim": 16},
            audio_config={**audio, "projection_dim": 16},
            projection_dim=16,
        )
    )


def _characters() -> RobertaTokenizer:
    """A tokenizer in which every letter is a token."""
    letters = "abcdefghijklmnopqrstuvwxyzĠ"
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    vocabulary = special | {letter: len(special) + i for i, letter in enumerate(letters)}
    return RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=64)


def _words() -> T5Tokenizer:
    """A tokenizer in which every word is a token."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), *((f"▁{word}", -1.0) for word in WORDS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, additional_special_tokens=[], model_max_length=64)
