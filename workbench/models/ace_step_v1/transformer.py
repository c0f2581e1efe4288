"""The denoiser of ACE-Step v1 3.5B (Gong et al., *ACE-Step*, 2025)."""

import math
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from cache.errors import UserError
from workbench.models.ace_step_v1.blocks import FinalLayer, PatchEmbed, TransformerBlock
from workbench.models.ace_step_v1.lyric_encoder import LyricEncoder
from workbench.models.ace_step_v1.rotary import rotary_table, wide

WEAK_BLOCKS = range(15, 20)
"""Blocks whose queries are weakened for the guidance's null pass."""

_TIMESTEP_CHANNELS = 256


class AceStepV1Transformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Predict the velocity of latents, given speaker, text and lyrics; loads the `ace_step_transformer` folder.

    The defaults are the published sizes. `max_position`, `max_height`, `max_width`, `ssl_encoder_depths` and
    `ssl_names` describe how the published weights were trained and have no effect here; `projectors` (sized by
    `ssl_latent_dims`) are in the checkpoint but not used. The `lyric_*` sizes other than `lyric_hidden_size` are not in
    the published configuration.

    Raises:
        UserError: if the widths do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 8,
        num_layers: int = 24,
        inner_dim: int = 2560,
        attention_head_dim: int = 128,
        num_attention_heads: int = 20,
        mlp_ratio: float = 2.5,
        out_channels: int = 8,
        max_position: int = 32768,  # noqa: ARG002
        rope_theta: float = 1e6,
        speaker_embedding_dim: int = 512,
        text_embedding_dim: int = 768,
        ssl_encoder_depths: Sequence[int] = (8, 8),  # noqa: ARG002
        ssl_names: Sequence[str] = ("mert", "m-hubert"),  # noqa: ARG002
        ssl_latent_dims: Sequence[int] = (1024, 768),
        lyric_encoder_vocab_size: int = 6693,
        lyric_hidden_size: int = 1024,
        patch_size: Sequence[int] = (16, 1),
        max_height: int = 16,  # noqa: ARG002
        max_width: int = 32768,  # noqa: ARG002
        lyric_attention_heads: int = 16,
        lyric_linear_units: int = 4096,
        lyric_num_blocks: int = 6,
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        if inner_dim != dim:
            raise UserError(
                f"The transformer's inner_dim is {inner_dim}, but {num_attention_heads} heads of {attention_head_dim} "
                f"channels are {dim} wide. inner_dim must be their product."
            )
        self.head_dim = attention_head_dim
        self.rope_theta = rope_theta
        self.proj_in = PatchEmbed(in_channels, dim, patch_size)
        self.timestep_embedder = TimestepEmbedding(_TIMESTEP_CHANNELS, dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.speaker_embedder = nn.Linear(speaker_embedding_dim, dim)
        self.genre_embedder = nn.Linear(text_embedding_dim, dim)
        self.lyric_embs = nn.Embedding(lyric_encoder_vocab_size, lyric_hidden_size)
        self.lyric_encoder = LyricEncoder(
            lyric_hidden_size, lyric_attention_heads, lyric_linear_units, lyric_num_blocks
        )
        self.lyric_proj = nn.Linear(lyric_hidden_size, dim)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(num_attention_heads, attention_head_dim, mlp_ratio) for _ in range(num_layers)]
        )
        self.projectors = nn.ModuleList([_projector(dim, width) for width in ssl_latent_dims])
        self.final_layer = FinalLayer(dim, patch_size, out_channels)

    @apply_forward_hook  # offloading moves the weights here, as it does for `forward`
    def encode(
        self,
        text_states: Float[Tensor, "row text_token text_dim"],
        text_mask: Shaped[Tensor, "row text_token"],
        speaker_embeds: Float[Tensor, "row speaker_dim"],
        lyric_token_ids: Int[Tensor, "row lyric_token"],
        lyric_mask: Shaped[Tensor, "row lyric_token"],
        weak_lyrics: bool = False,
    ) -> tuple[Float[Tensor, "row token dim"], Bool[Tensor, "row token"]]:
        """Return the conditioning tokens and their mask, in the order speaker (one token), text, lyrics.

        A row without lyrics has token 0 with mask 0. `weak_lyrics` weakens queries in the lyric encoder, as in the null
        pass of entropy rectifying guidance.
        """
        speaker = self.speaker_embedder(speaker_embeds)[:, None]
        lyrics = self.lyric_encoder(self.lyric_embs(lyric_token_ids), lyric_mask.bool(), weak_lyrics)
        states = torch.cat([speaker, self.genre_embedder(text_states), self.lyric_proj(lyrics)], dim=1)
        always = torch.ones_like(text_mask[:, :1], dtype=torch.bool)
        return states, torch.cat([always, text_mask.bool(), lyric_mask.bool()], dim=1)

    def forward(
        self,
        hidden_states: Float[Tensor, "row channel height frame"],
        timestep: Float[Tensor, " row"],
        encoder_hidden_states: Float[Tensor, "row token dim"],
        encoder_attention_mask: Bool[Tensor, "row token"],
        encoder_positions: Int[Tensor, "row token"] | None = None,
        attention_mask: Bool[Tensor, "row frame"] | None = None,
        weak_queries: Bool[Tensor, " row"] | None = None,
        passes: tuple[str, ...] | None = None,  # noqa: ARG002
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Float[Tensor, "row channel height frame"]]:
        """Return the velocity of latents at `timestep` (1,000 times sigma), given the conditioning from `encode`.

        Rows do not influence each other. Timesteps are float32 even with half-precision weights, because rounding would
        merge neighbouring ones. `encoder_positions` are the rotary positions of the conditioning tokens (default 0, 1,
        …); `attention_mask` is false at padded frames; in rows where `weak_queries` is true, queries of `WEAK_BLOCKS`
        are weakened (entropy rectifying guidance). `passes` names each row's guidance pass ("cond", "text", "null") for
        tracing, and has no other effect.
        """
        dtype = hidden_states.dtype
        embedded_timestep = self.timestep_embedder(_timestep_channels(timestep, dtype))
        modulation = self.t_block(embedded_timestep).unflatten(-1, (6, -1))
        states = self.proj_in(hidden_states)
        frames = torch.arange(states.shape[1], device=states.device)
        if encoder_positions is None:
            tokens = torch.arange(encoder_hidden_states.shape[1], device=states.device)
            encoder_positions = tokens.expand(len(states), -1)
        rotary = rotary_table(frames, self.head_dim, self.rope_theta, dtype)
        encoder_rotary = rotary_table(encoder_positions, self.head_dim, self.rope_theta, dtype)
        for index, block in enumerate(self.transformer_blocks):
            states = block(
                states,
                modulation,
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                encoder_rotary=encoder_rotary,
                rotary=rotary,
                attention_mask=attention_mask,
                weak_queries=weak_queries if index in WEAK_BLOCKS else None,
            )
        sample = self.final_layer(states, embedded_timestep)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)


def _projector(dim: int, width: int) -> nn.Sequential:
    """Return the projection to a self-supervised audio model's states, which is used only in training."""
    return nn.Sequential(
        nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, width)
    )


def _timestep_channels(timestep: Float[Tensor, " row"], dtype: torch.dtype) -> Float[Tensor, "row channel"]:
    """Return cosines, then sines, of the timestep at rates from 1 down to 1 / 10,000, in float32 or wider."""
    half = _TIMESTEP_CHANNELS // 2
    steps = torch.arange(half, device=timestep.device).to(wide(dtype))
    angles = timestep.to(wide(dtype))[:, None] * torch.exp(steps * (-math.log(10000) / half))
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
