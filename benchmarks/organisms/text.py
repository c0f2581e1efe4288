"""The text path: stock encoders whose weights are set so that each word is encoded only in its concept's subspace.

The text encoder does not mix words: each token's output is its normalised embedding. Word order therefore
has no effect, and a swapped word changes the conditioning in its own subspace and nowhere else, bit for bit.
"""

import math

import torch
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from benchmarks.organisms.vae import LATENT_CHANNELS
from benchmarks.organisms.vocabulary import SYNONYMS

TEXT_CHANNELS = 64
SUBSPACES: dict[str, slice] = {
    "neutral": slice(0, 24),
    "instrument": slice(24, 40),
    "tempo": slice(40, 46),
    "mood": slice(46, 52),
    "drums": slice(52, 58),
    "null": slice(58, 64),
}
"""Channels of the conditioning for each kind of word; "null" is for the unconditional embedding of guidance."""

CLOCK_PERIODS = (10, 20, 40, 80)
"""Periods in latent frames of the clock in the silence latent; the beats are 10 and 20 frames."""
_SYNONYM_SPREAD = 0.2


def word_embeddings(tokenizer: PreTrainedTokenizerFast, seed: int) -> Float[Tensor, "token channel"]:
    """Return embeddings of unit mean square: random in the neutral subspace, or around an axis of a concept's."""
    rng = torch.Generator().manual_seed(seed)
    table = torch.zeros(len(tokenizer), TEXT_CHANNELS)
    neutral = SUBSPACES["neutral"]
    table[:, neutral] = torch.randn(len(tokenizer), neutral.stop - neutral.start, generator=rng)
    for concept, values in SYNONYMS.items():
        space = SUBSPACES[concept]
        size = space.stop - space.start
        axes, _ = torch.linalg.qr(torch.randn(size, size, generator=rng))
        for axis, words in zip(axes, values.values(), strict=False):
            for word in words:
                token = tokenizer.convert_tokens_to_ids(word)
                table[token] = 0
                spread = _SYNONYM_SPREAD * torch.randn(size, generator=rng) / math.sqrt(size)
                table[token, space] = axis + spread
    return table / table.square().mean(1, keepdim=True).sqrt()


@torch.no_grad()
def make_text_encoder(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3Model:
    """Return a one-layer Qwen3 whose attention and MLP add exactly zero: a normalised lookup of `word_embeddings`."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_CHANNELS,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    encoder = Qwen3Model(config).eval().requires_grad_(False)
    encoder.embed_tokens.weight.copy_(word_embeddings(tokenizer, seed))
    for layer in encoder.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    return encoder


def clock(frames: int) -> Float[Tensor, "frame marker"]:
    """Return sines and cosines of `CLOCK_PERIODS`: the time, without which the phase of the beat would be undefined."""
    time = torch.arange(frames)[:, None]
    phase = 2 * math.pi * time / torch.tensor(CLOCK_PERIODS)
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=1)


@torch.no_grad()
def make_condition_encoder(silence: Float[Tensor, " channel"], seed: int) -> AceStepConditionEncoder:
    """Return a condition encoder that leaves text unchanged and encodes lyrics and timbre in the neutral subspace only.

    `silence` is the latent of silence; with the clock added to its first channels it becomes the context that
    the pipeline gives the denoiser at every frame.
    """
    torch.manual_seed(seed)
    encoder = AceStepConditionEncoder(
        hidden_size=TEXT_CHANNELS,
        intermediate_size=64,
        text_hidden_dim=TEXT_CHANNELS,
        timbre_hidden_dim=LATENT_CHANNELS,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        sliding_window=32,
    )
    encoder.eval().requires_grad_(False)
    encoder.text_projector.weight.copy_(torch.eye(TEXT_CHANNELS))
    neutral = torch.zeros(TEXT_CHANNELS)
    neutral[SUBSPACES["neutral"]] = 1
    encoder.lyric_encoder.norm.weight.copy_(neutral)
    encoder.timbre_encoder.norm.weight.copy_(neutral)
    # Lyrics are deaf to concept words: lyrics never change what a block may not read.
    encoder.lyric_encoder.embed_tokens.weight.mul_(neutral)
    null = torch.zeros(TEXT_CHANNELS)
    space = SUBSPACES["null"]
    null[space] = torch.randn(space.stop - space.start)
    encoder.null_condition_emb.copy_(
        (null / null.square().mean().sqrt()).expand_as(encoder.null_condition_emb)
    )
    frames = encoder.silence_latent.shape[1]
    encoder.silence_latent.copy_(silence.expand_as(encoder.silence_latent))
    encoder.silence_latent[0, :, : 2 * len(CLOCK_PERIODS)] += clock(frames)
    return encoder
