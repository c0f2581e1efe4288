"""Weights that two programs can reproduce without exchanging them, drawn from a seed and each parameter's name."""

import zlib

import numpy as np
import torch


def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values of a parameter: scaled standard normals from a generator seeded with (seed, CRC-32 of the name).

    The scale keeps signals of order one through a stack of layers: 1 / sqrt(inputs) for two or more axes, 0.1 around
    1 for vectors named `weight` (the gains of norms), and 0.1 otherwise.
    """
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    if len(shape) > 1:
        return values / np.sqrt(np.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


@torch.no_grad()
def fill(module: torch.nn.Module, seed: int) -> None:
    """Set every floating-point parameter and persistent buffer of a module to its drawn value."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.from_numpy(np.asarray(draw(name, tuple(value.shape), seed)))
            value.copy_(drawn.to(value.dtype))
