"""Rotary positions as ACE-Step v1 has them, and the width that it computes in."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

RotaryTable = tuple[Float[Tensor, "... head_dim"], Float[Tensor, "... head_dim"]]
"""Cosines and sines: [token, head_dim] where all rows have the same positions, else [row, token, head_dim]."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype for sums that must not be taken in half precision: float32, or `dtype` where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def rotary_table(
    positions: Int[Tensor, "..."], head_dim: int, theta: float, dtype: torch.dtype
) -> RotaryTable:
    """Cosines and sines of `positions`: angle position * theta ** (-2i / head_dim) at channels i and i + head_dim / 2.

    Computed in at least float32, then rounded to `dtype`: in bfloat16 the published weights know rounded tables only.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device).to(wide(dtype)) / head_dim
    angles = positions[..., None].to(wide(dtype)) * (1 / theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    states: Float[Tensor, "row head token head_dim"], table: RotaryTable
) -> Float[Tensor, "row head token head_dim"]:
    """Turn the pairs of neighbouring channels (2i, 2i + 1) by the angles of their own two channels.

    The table is laid out for pairs (i, i + head_dim / 2), so that the two channels of a pair have *different* angles
    and this is no rotation: lengths are not kept, and scores depend on absolute positions. The published weights are
    trained so.
    """
    cos, sin = (values.unsqueeze(-3) for values in table)
    x = states.to(wide(states.dtype))
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(states.dtype)
