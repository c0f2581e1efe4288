"""Reduce the denoiser's tokens: every n-th, or means of consecutive ones."""

import torch
from jaxtyping import Float

from cache.plan import TokenReduction


def reduce_tokens(
    values: Float[torch.Tensor, "*axes token channel"], reduction: TokenReduction
) -> Float[torch.Tensor, "*axes stored_token channel"]:
    """Return the tokens to store; means are computed in float32 (or wider), and the last group may be smaller."""
    if reduction.kind == "none" or reduction.size == 1:
        return values
    if reduction.kind == "stride":
        return values[..., :: reduction.size, :]
    wide = values if values.dtype == torch.float64 else values.float()
    return torch.stack([group.mean(dim=-2) for group in wide.split(reduction.size, dim=-2)], dim=-2)
