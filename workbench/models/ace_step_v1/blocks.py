"""Building blocks of ACE-Step v1's denoiser: patch embedding, blocks, final layer; names as in the checkpoint."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.models.ace_step_v1.attention import CrossAttention, LinearSelfAttention, Tokens
from workbench.models.ace_step_v1.rotary import RotaryTable, wide

_STEM_GROUPS = 32
_STEM_WIDENING = 256  # channels of the stem per latent channel, whatever the model's width
_KERNEL = 3  # frames covered by the feed-forward's depthwise convolution


def rms_norm(states: Tokens) -> Tokens:
    """Divide each token by its root mean square (1e-6 added to the mean square), in float32 or wider; no gain."""
    x = states.to(wide(states.dtype))
    return (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6)).to(states.dtype)


def modulate(states: Tokens, shift: Float[Tensor, "row 1 dim"], scale: Float[Tensor, "row 1 dim"]) -> Tokens:
    """Scale `states` by 1 + `scale` and shift them (adaptive norm; Peebles and Xie, *DiT*, 2023)."""
    return states * (1 + scale) + shift


class PatchEmbed(nn.Module):
    """Latents to tokens, one per frame.

    The group norm between its convolutions takes its statistics over all frames, padding included, so all clips of a
    batch must have the same duration.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        size = (patch_size[0], patch_size[1])
        wide_channels = in_channels * _STEM_WIDENING
        self.early_conv_layers = nn.Sequential(
            nn.Conv2d(in_channels, wide_channels, kernel_size=size, stride=size),
            nn.GroupNorm(_STEM_GROUPS, wide_channels, eps=1e-6),
            nn.Conv2d(wide_channels, dim, kernel_size=1),
        )

    def forward(self, latents: Float[Tensor, "row channel height frame"]) -> Tokens:
        """Return one token per patch, in order of time."""
        tokens: Tensor = self.early_conv_layers(latents).flatten(2).transpose(1, 2)
        return tokens


class _Convolution(nn.Module):
    """A one-dimensional convolution under its name in the checkpoint."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2, groups=groups, bias=bias)

    def forward(self, states: Float[Tensor, "row n_in frame"]) -> Float[Tensor, "row n_out frame"]:
        convolved: Tensor = self.conv(states)
        return convolved


class GatedConvolution(nn.Module):
    """The feed-forward: widen, convolve each channel over three frames, gate, narrow (Xie et al., *Sana*, 2024).

    The convolution includes padded frames.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inverted_conv = _Convolution(dim, 2 * hidden)
        self.depth_conv = _Convolution(2 * hidden, 2 * hidden, kernel=_KERNEL, groups=2 * hidden)
        self.point_conv = _Convolution(hidden, dim, bias=False)

    def forward(self, states: Tokens) -> Tokens:
        """Return tokens of the same width."""
        widened = F.silu(self.inverted_conv(states.transpose(1, 2)))
        signal, gate = self.depth_conv(widened).chunk(2, dim=1)
        narrowed: Tensor = self.point_conv(signal * F.silu(gate))
        return narrowed.transpose(1, 2)


class TransformerBlock(nn.Module):
    """One block: modulated self-attention, cross-attention, modulated feed-forward, each added to the residual stream.

    Cross-attention reads from and adds to the residual stream directly, with neither a norm before nor a gate after.
    """

    def __init__(self, heads: int, head_dim: int, mlp_ratio: float) -> None:
        super().__init__()
        dim = heads * head_dim
        self.attn = LinearSelfAttention(heads, head_dim)
        self.cross_attn = CrossAttention(heads, head_dim)
        self.ff = GatedConvolution(dim, int(dim * mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: Tokens,
        modulation: Float[Tensor, "row 6 dim"],
        encoder_hidden_states: Float[Tensor, "row encoder_token dim"],
        encoder_attention_mask: Bool[Tensor, "row encoder_token"],
        encoder_rotary: RotaryTable,
        rotary: RotaryTable,
        attention_mask: Bool[Tensor, "row token"] | None = None,
        weak_queries: Bool[Tensor, " row"] | None = None,
    ) -> Tokens:
        """Return the residual stream after the block; the timestep adds `modulation` to shifts, scales, gates."""
        shift_attn, scale_attn, gate_attn, shift_ff, scale_ff, gate_ff = (
            self.scale_shift_table + modulation
        ).chunk(6, dim=1)
        attended = self.attn(
            modulate(rms_norm(hidden_states), shift_attn, scale_attn),
            rotary=rotary,
            attention_mask=attention_mask,
            weak_queries=weak_queries,
        )
        hidden_states = hidden_states + gate_attn * attended
        hidden_states = hidden_states + self.cross_attn(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            encoder_rotary=encoder_rotary,
            rotary=rotary,
            attention_mask=attention_mask,
            weak_queries=weak_queries,
        )
        return hidden_states + gate_ff * self.ff(modulate(rms_norm(hidden_states), shift_ff, scale_ff))


class FinalLayer(nn.Module):
    """Project tokens to latents."""

    def __init__(self, dim: int, patch_size: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.patch_height = patch_size[0]
        self.linear = nn.Linear(dim, patch_size[0] * patch_size[1] * out_channels)
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) / dim**0.5)

    def forward(
        self, states: Tokens, embedded_timestep: Float[Tensor, "row dim"]
    ) -> Float[Tensor, "row channel height frame"]:
        """Modulate by the timestep, project, and rearrange into latents (within a token, channels vary fastest)."""
        shift, scale = (self.scale_shift_table + embedded_timestep[:, None]).chunk(2, dim=1)
        patches: Tensor = self.linear(modulate(rms_norm(states), shift, scale))
        return patches.unflatten(-1, (self.patch_height, -1)).permute(0, 3, 2, 1)
