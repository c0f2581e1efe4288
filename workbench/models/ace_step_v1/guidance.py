"""Guidance of ACE-Step v1: combine the velocities of a step's passes into the one that the scheduler follows.

Every function treats rows independently.
"""

import torch
from jaxtyping import Float

Velocity = Float[torch.Tensor, "row channel band frame"]

MAP = (-2, -1)  # the axes (band, frame) of one channel's map: norms and projections are taken over a map
SMALLEST_NORM = 1e-12  # shorter velocities have no direction
EPSILON = 1e-8  # avoids division by 0 for a null velocity of 0


class Momentum:
    """Running sum of guidance differences: `r <- difference + momentum * r`, starting from r = 0.

    The negative momentum of Adaptive Projected Guidance pushes a step away from the direction of previous steps.
    """

    def __init__(self, momentum: float = -0.75) -> None:
        self.momentum = momentum
        self._sum: Velocity | None = None

    def update(self, difference: Velocity) -> Velocity:
        """Add a step's difference and return the running sum."""
        self._sum = difference if self._sum is None else difference + self.momentum * self._sum
        return self._sum


def apg(
    cond: Velocity,
    null: Velocity,
    scale: float,
    momentum: Momentum,
    eta: float = 0.0,
    norm_threshold: float = 2.5,
) -> Velocity:
    """Adaptive Projected Guidance (Sadat et al. 2024, "Eliminating Oversaturation and Artifacts ...").

    The difference between the passes, with momentum, is clipped to norm `norm_threshold` in each channel, and its
    component along the conditional velocity, which oversaturates, is weighted by `eta`. `momentum` must be updated in
    every guided step, in order.
    """
    difference = momentum.update(cond - null)
    norm = torch.linalg.vector_norm(difference, dim=MAP, keepdim=True)
    difference = difference * (norm_threshold / norm).clamp(max=1)
    parallel, orthogonal = _split(difference, cond)
    return cond + (scale - 1) * (orthogonal + eta * parallel)


def cfg(cond: Velocity, null: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance (Ho & Salimans 2022)."""
    return null + scale * (cond - null)


def cfg_star(cond: Velocity, null: Velocity, scale: float, step: int, zero_steps: int = 1) -> Velocity:
    """CFG-Zero* (Fan et al. 2025): guide from the multiple of the null velocity closest to the conditional one.

    Up to and including step `zero_steps` (0-based: with 1, the first two steps), the velocity is 0, as in the published
    sampler.
    """
    if step <= zero_steps:
        return torch.zeros_like(cond)
    fit = _row_sum(cond * null) / (_row_sum(null * null) + EPSILON)
    return cfg(cond, null * fit, scale)


def double_guidance(
    cond: Velocity, text: Velocity, null: Velocity, text_scale: float, lyric_scale: float
) -> Velocity:
    """Guidance with separate scales for text and lyrics; `text` is the velocity of the pass without lyrics.

    null + text_scale * (text - null) + lyric_scale * (cond - text).
    """
    return (1 - text_scale) * null + (text_scale - lyric_scale) * text + lyric_scale * cond


def _split(difference: Velocity, along: Velocity) -> tuple[Velocity, Velocity]:
    """Split each channel's map into the parts parallel and orthogonal to another map, in float64."""
    aim = along.double()
    direction = aim / torch.linalg.vector_norm(aim, dim=MAP, keepdim=True).clamp(min=SMALLEST_NORM)
    parallel = (difference * direction).sum(dim=MAP, keepdim=True) * direction
    return parallel.to(difference.dtype), (difference - parallel).to(difference.dtype)


def _row_sum(values: Velocity) -> Float[torch.Tensor, "row 1 1 1"]:
    return values.flatten(1).sum(1)[:, None, None, None]
