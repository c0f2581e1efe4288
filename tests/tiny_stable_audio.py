"""A random Stable Audio Open pipeline small enough for tests: three blocks, width 32, 16 kHz stereo, a 2.4 s window."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import StableAudioDiTModel, StableAudioPipeline, StableAudioProjectionModel
from transformers import T5Config, T5EncoderModel, T5Tokenizer

import workbench.plain_nnsight  # noqa: F401 - lets diffusers import torchsde, for its scheduler
from tests.tiny_vae import LATENT_CHANNELS, tiny_vae

WIDTH = 32
CONDITIONING = 24
FRAMES = 60
FRAME_SECONDS = 640 / 16000
MAX_TOKENS = 10
WORDS = (
    *("a", "the", "song", "slow", "fast", "happy", "sad", "flute", "piano"),
    *("with", "without", "drums", "low", "quality"),
)
SPLIT = ("▁vio", "lin")

TRANSFORMER = {
    "sample_size": FRAMES,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "num_key_value_attention_heads": 2,
    "cross_attention_dim": WIDTH,
    "time_proj_dim": 16,
    "global_states_input_dim": 2 * CONDITIONING,
    "cross_attention_input_dim": CONDITIONING,
}


def save_tiny_stable_audio(folder: Path, **changes: Any) -> Path:
    """Write a pipeline folder with random weights; `changes` modify the transformer's configuration."""
    torch.manual_seed(0)
    pipeline = StableAudioPipeline(
        vae=tiny_vae(audio_channels=2),
        text_encoder=T5EncoderModel(
            T5Config(
                vocab_size=len(WORDS) + len(SPLIT) + 3,
                d_model=WIDTH,
                d_kv=8,
                d_ff=64,
                num_layers=1,
                num_heads=4,
                pad_token_id=0,
            )
        ),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=WIDTH, conditioning_dim=CONDITIONING, min_value=0, max_value=512
        ),
        tokenizer=_tokenizer(),
        transformer=StableAudioDiTModel(**(TRANSFORMER | changes)),
        scheduler=diffusers.CosineDPMSolverMultistepScheduler(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer() -> T5Tokenizer:
    """A T5 tokenizer with a vocabulary of whole words, except one that is two pieces."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS), *SPLIT]
    return T5Tokenizer(
        vocab=[(piece, 0.0 if piece.startswith("<") else -1.0) for piece in pieces],
        extra_ids=0,
        model_max_length=MAX_TOKENS,
    )
