"""One training step of an organism: the learning rate schedule, and a clipped AdamW step."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def cosine(step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Learning rate factor: linear warm-up over `warmup` steps, times half a cosine from 1 to `floor`.

    The shipped organisms were trained with it. Schedules of libraries begin their cosine after the warm-up, and would
    make other weights of the same recipe.
    """
    return min(1.0, (step + 1) / warmup) * (
        floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )


def make_optimiser(module: nn.Module) -> torch.optim.AdamW:
    """AdamW without weight decay for the module's trained parameters; `descend` gives the learning rate."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0, fused=True)


def descend(
    optimiser: torch.optim.AdamW,
    loss: Float[Tensor, ""],
    learning_rate: float,
    mask_gradients: Callable[[], None] | None = None,
) -> None:
    """Step down the loss's gradient, masked and then clipped to a norm of 1."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    optimiser.zero_grad()
    loss.backward()
    if mask_gradients is not None:
        mask_gradients()
    nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
    optimiser.step()
