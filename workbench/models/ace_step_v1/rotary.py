"""ACE-Step v1's rotary position embedding, and the dtype of its wider computations."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

RotaryTable = tuple[Float[Tensor, "... head_dim"], Float[Tensor, "... head_dim"]]
"""Cosines and sines: [token, head_dim] if all rows have the same positions, else [row, token, head_dim]."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums that need more than half precision: float32, or `dtype` if that is wider."""
    return torch.promote_types(dtype, torch.float32)


def rotary_table(
    positions: Int[Tensor, "..."], head_dim: int, theta: float, dtype: torch.dtype
) -> RotaryTable:
    """Return cosines and sines of position * theta ** (-2i / head_dim), at channels i and i + head_dim / 2.

    They are computed in float32 or wider, then rounded to `dtype`, because the published bfloat16 weights were trained
    with rounded tables.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device).to(wide(dtype)) / head_dim
    angles = positions[..., None].to(wide(dtype)) * (1 / theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    states: Float[Tensor, "row head token head_dim"], table: RotaryTable
) -> Float[Tensor, "row head token head_dim"]:
    """Apply rotary embedding to pairs of neighbouring channels (2i, 2i + 1), each channel with its own angle.

    The table is laid out for pairs (i, i + head_dim / 2), so the two channels of a pair have *different* angles, and
    this is not a rotation: norms are not preserved, and scores depend on absolute positions. The published weights were
    trained this way.
    """
    cos, sin = (values.unsqueeze(-3) for values in table)
    x = states.to(wide(states.dtype))
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(states.dtype)
