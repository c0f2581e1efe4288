"""Guidance of ACE-Step v1: how the velocities of a step's passes become the one that the scheduler follows.

Every function works on each row by itself.
"""

import torch
from jaxtyping import Float

Velocity = Float[torch.Tensor, "row channel band frame"]

MAP = (-2, -1)  # the axes (band, frame) of one channel's map: norms and projections are taken over a map
SMALLEST_NORM = 1e-12  # no direction is taken from what is shorter
EPSILON = 1e-8  # keeps a null velocity of 0 from being divided by


class Momentum:
    """Running sum of the guidance's differences: `r <- difference + momentum * r`, from r = 0.

    The negative momentum of Adaptive Projected Guidance pushes a step away from what the steps before it did.
    """

    def __init__(self, momentum: float = -0.75) -> None:
        self.momentum = momentum
        self._sum: Velocity | None = None

    def update(self, difference: Velocity) -> Velocity:
        """Take in a step's difference, return the running sum."""
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

    The difference of the passes, with momentum, is shortened to `norm_threshold` in each channel, and its part along
    the conditional velocity, which oversaturates, is weighed by `eta`. `momentum` must see every guided step, in order.
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
    """CFG-Zero* (Fan et al. 2025): guidance from the multiple of the null velocity that is nearest the conditional one.

    Steps up to and including `zero_steps` (0-based: with 1, the first two) stand still, as in the published sampler.
    """
    if step <= zero_steps:
        return torch.zeros_like(cond)
    fit = _row_sum(cond * null) / (_row_sum(null * null) + EPSILON)
    return cfg(cond, null * fit, scale)


def double_guidance(
    cond: Velocity, text: Velocity, null: Velocity, text_scale: float, lyric_scale: float
) -> Velocity:
    """Guidance with a scale of its own for lyrics; `text` is the velocity of the pass without lyrics.

    From `null` it goes `text_scale` times the way to `text`, and `lyric_scale` times the way from `text` to `cond`.
    """
    return (1 - text_scale) * null + (text_scale - lyric_scale) * text + lyric_scale * cond


def _split(difference: Velocity, along: Velocity) -> tuple[Velocity, Velocity]:
    """The parts of each channel's map parallel and orthogonal to another one, computed in float64."""
    aim = along.double()
    direction = aim / torch.linalg.vector_norm(aim, dim=MAP, keepdim=True).clamp(min=SMALLEST_NORM)
    parallel = (difference * direction).sum(dim=MAP, keepdim=True) * direction
    return parallel.to(difference.dtype), (difference - parallel).to(difference.dtype)


def _row_sum(values: Velocity) -> Float[torch.Tensor, "row 1 1 1"]:
    return values.flatten(1).sum(1)[:, None, None, None]
