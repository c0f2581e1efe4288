"""ACE-Step v1's lyric encoder: a conformer without convolutions, that is, a transformer with relative positions.

Attention with relative positions: Dai et al., *Transformer-XL*, 2019, section 3.3. Parameter names are those of the
published checkpoint.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.models.ace_step_v1.attention import WEAKENING
from workbench.models.ace_step_v1.rotary import wide

WEAK_BLOCKS = range(4, 6)
"""Blocks whose queries are weakened for the guidance's null lyrics."""

Tokens = Float[Tensor, "row token dim"]


def relative_positions(tokens: int, dim: int, like: Tensor) -> Float[Tensor, "distance dim"]:
    """Return sines (even channels) and cosines (odd) of the distances tokens - 1 … -(tokens - 1), in that order.

    They are computed in float32 or wider, and returned with the dtype and on the device of `like`.
    """
    compute = wide(like.dtype)
    distances = torch.arange(tokens - 1, -tokens, -1, device=like.device).to(compute)
    rates = torch.exp(torch.arange(0, dim, 2, device=like.device).to(compute) * (-math.log(10000) / dim))
    angles = distances[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)


class RelativeAttention(nn.Module):
    """Self-attention with scores that are the sum of a content term and a relative-position term."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim)
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.randn(heads, self.head_dim) / self.head_dim**0.5)
        self.pos_bias_v = nn.Parameter(torch.randn(heads, self.head_dim) / self.head_dim**0.5)

    def forward(
        self,
        states: Tokens,
        mask: Bool[Tensor, "row token"],
        positions: Float[Tensor, "distance dim"],
        weak: bool,
    ) -> Tokens:
        """Attend to the tokens where `mask` is true; a row without any gets the output projection's bias."""
        query = self.linear_q(states)
        query = self._split(query * WEAKENING if weak else query)
        key, value = self._split(self.linear_k(states)), self._split(self.linear_v(states))
        distance = self._split(self.linear_pos(positions)[None])
        by_content = (query + self.pos_bias_u[:, None]) @ key.transpose(-1, -2)
        by_distance = (query + self.pos_bias_v[:, None]) @ distance.transpose(-1, -2)
        scores = (by_content + _by_key(by_distance)) / math.sqrt(self.head_dim)
        hidden = ~mask[:, None, None, :]
        # Filled twice because the softmax is NaN if all keys are masked.
        weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1).masked_fill(hidden, 0)
        attended: Tensor = self.linear_out((weights @ value).transpose(1, 2).flatten(2))
        return attended

    def _split(self, states: Tokens) -> Float[Tensor, "row head token head_dim"]:
        return states.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


def _by_key(scores: Float[Tensor, "row head token distance"]) -> Float[Tensor, "row head token token"]:
    """Convert scores by query and distance to scores by query and key: key j is at distance i - j from query i."""
    tokens = torch.arange(scores.shape[2], device=scores.device)
    index = len(tokens) - 1 - tokens[:, None] + tokens[None, :]
    return scores.gather(-1, index.expand(*scores.shape[:2], -1, -1))


class FeedForward(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(dim, hidden)
        self.w_2 = nn.Linear(hidden, dim)

    def forward(self, states: Tokens) -> Tokens:
        """Return tokens of the same width."""
        narrowed: Tensor = self.w_2(F.silu(self.w_1(states)))
        return narrowed


class LyricBlock(nn.Module):
    """Attention and feed-forward, each with a norm before it, added to the residual stream."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(dim, heads)
        self.feed_forward = FeedForward(dim, hidden)
        self.norm_mha = nn.LayerNorm(dim)
        self.norm_ff = nn.LayerNorm(dim)

    def forward(
        self,
        states: Tokens,
        mask: Bool[Tensor, "row token"],
        positions: Float[Tensor, "distance dim"],
        weak: bool,
    ) -> Tokens:
        """Return the residual stream after the block; arguments as for `RelativeAttention`."""
        states = states + self.self_attn(self.norm_mha(states), mask, positions, weak)
        return states + self.feed_forward(self.norm_ff(states))


class _Embedding(nn.Module):
    """The input layer, under its names in the checkpoint."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))

    def forward(self, states: Tokens) -> Tokens:
        embedded: Tensor = self.out(states) * math.sqrt(states.shape[-1])
        return embedded


class LyricEncoder(nn.Module):
    """Encode embedded lyric tokens to states of the same width; for inference only, without dropout."""

    def __init__(self, dim: int, heads: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.embed = _Embedding(dim)
        self.encoders = nn.ModuleList([LyricBlock(dim, heads, hidden) for _ in range(blocks)])
        self.after_norm = nn.LayerNorm(dim)

    def forward(self, embedded: Tokens, mask: Bool[Tensor, "row token"], weak: bool = False) -> Tokens:
        """Return the tokens' states; tokens where `mask` is false influence no others. `weak`: see `WEAK_BLOCKS`."""
        states = self.embed(embedded)
        positions = relative_positions(states.shape[1], states.shape[2], states)
        for index, block in enumerate(self.encoders):
            states = block(states, mask, positions, weak=weak and index in WEAK_BLOCKS)
        normed: Tensor = self.after_norm(states)
        return normed
