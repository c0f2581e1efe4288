"""The two attentions of an ACE-Step v1 block: linear self-attention, and softmax cross-attention to the conditioning.

Parameter names are those of the published checkpoint. Tracing reads and writes the outputs of the projection modules,
which are the values before rotation and weakening.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.models.ace_step_v1.rotary import RotaryTable, rotate, wide

WEAKENING = 0.01
"""Factor on weakened queries under entropy rectifying guidance (Ifriqi et al., *Entropy Rectifying Guidance*, 2025)."""

_EPSILON = 1e-15  # a padded query attends to nothing: 0 / epsilon = 0

Tokens = Float[Tensor, "row token dim"]


class _Attention(nn.Module):
    """Projections with the published names, and splitting and joining heads."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        dim = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def _split(self, states: Tokens) -> Float[Tensor, "row head token head_dim"]:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, heads: Float[Tensor, "row head token head_dim"]) -> Tokens:
        joined: Tensor = self.to_out[0](heads.transpose(1, 2).flatten(2))
        return joined

    def _queries(
        self, states: Tokens, rotary: RotaryTable, weak: Bool[Tensor, " row"] | None
    ) -> Float[Tensor, "row head token head_dim"]:
        query = self.to_q(states)
        if weak is not None:
            query = torch.where(weak[:, None, None], query * WEAKENING, query)
        return rotate(self._split(query), rotary)


class LinearSelfAttention(_Attention):
    """Self-attention over latent frames with the kernel ReLU(q) · ReLU(k): its cost is linear in the frames.

    Formula: Katharopoulos et al., *Transformers are RNNs*, 2020, with ReLU as the feature map. Queries and keys are
    rotated first.
    """

    def forward(
        self,
        hidden_states: Tokens,
        rotary: RotaryTable,
        attention_mask: Bool[Tensor, "row token"] | None = None,
        weak_queries: Bool[Tensor, " row"] | None = None,
    ) -> Tokens:
        """Attend among the frames where `attention_mask` is true; masked frames neither attend nor are attended to."""
        query = self._queries(hidden_states, rotary, weak_queries).relu()
        key = rotate(self._split(self.to_k(hidden_states)), rotary).relu()
        value = self._split(self.to_v(hidden_states))
        if attention_mask is not None:
            kept = attention_mask[:, None, :, None]
            query, key, value = query * kept, key * kept, value * kept
        query, key, value = (states.to(wide(states.dtype)) for states in (query, key, value))
        weighted = query @ (key.transpose(-1, -2) @ value)
        total = query @ key.sum(dim=-2)[..., None]
        return self._join((weighted / (total + _EPSILON)).to(hidden_states.dtype))


class CrossAttention(_Attention):
    """Softmax attention of latent frames to conditioning tokens, both rotated by their own positions.

    The checkpoint also contains projections for a joint attention that no published model computes.
    """

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__(heads, head_dim)
        dim = heads * head_dim
        self.add_q_proj = nn.Linear(dim, dim)
        self.add_k_proj = nn.Linear(dim, dim)
        self.add_v_proj = nn.Linear(dim, dim)
        self.to_add_out = nn.Linear(dim, dim)

    def forward(
        self,
        hidden_states: Tokens,
        encoder_hidden_states: Float[Tensor, "row encoder_token dim"],
        encoder_attention_mask: Bool[Tensor, "row encoder_token"],
        encoder_rotary: RotaryTable,
        rotary: RotaryTable,
        attention_mask: Bool[Tensor, "row token"] | None = None,
        weak_queries: Bool[Tensor, " row"] | None = None,
    ) -> Tokens:
        """Attend to the conditioning tokens where `encoder_attention_mask` is true.

        `encoder_rotary` has one table per row, so that token positions may differ between rows. Frames where
        `attention_mask` is false attend to nothing: their output is the output projection's bias.
        """
        query = self._queries(hidden_states, rotary, weak_queries)
        key = rotate(self._split(self.to_k(encoder_hidden_states)), encoder_rotary)
        value = self._split(self.to_v(encoder_hidden_states))
        visible = encoder_attention_mask[:, None, None, :]
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        if attention_mask is not None:
            heads = heads.masked_fill(~attention_mask[:, None, :, None], 0)
        return self._join(heads)
