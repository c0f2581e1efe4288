"""Weights and rows of the comparisons of autoencoders, which both sides make for themselves. Needs no workbench."""

import numpy as np
import torch
from torch import Tensor

CHANNELS, CHANNELS_OUT, FEATURES, ROWS = 6, 4, 20, 24
K = 4
WIDTHS = (4, 10)
AUX_COEFFICIENT, SPARSITY_COEFFICIENT, PRE_ACTIVATION_COEFFICIENT = 0.25, 0.7, 0.01
BANDWIDTH, TANH_SCALE = 0.4, 1.5
RUNNING_THRESHOLD = 0.4
LEARNING_RATE = 0.05
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def draw(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers, the same in both precisions, and on every processor (those of torch are not)."""
    numbers = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(numbers).double()


def rows() -> Tensor:
    return 1.5 * draw(ROWS, CHANNELS, seed=4) + 0.5


def targets() -> Tensor:
    """What a transcoder between sites of one width reconstructs."""
    return draw(ROWS, CHANNELS, seed=8)


def dead() -> Tensor:
    return torch.arange(FEATURES) % 3 == 1


def threshold() -> Tensor:
    return (0.2 + 0.3 * draw(FEATURES, seed=5).abs()).float().double()


def weights(unit: bool, out: int = CHANNELS) -> dict[str, Tensor]:
    """Parameters that every kind has; `unit`: with decoder rows of unit norm."""
    decoder = draw(FEATURES, out, seed=2)
    if unit:
        decoder /= decoder.norm(dim=1, keepdim=True)
    return {
        "W_enc": 0.6 * draw(CHANNELS, FEATURES, seed=0),
        "b_enc": 0.3 * draw(FEATURES, seed=1),
        "W_dec": decoder,
        "b_dec": 0.5 * draw(out, seed=3),
    }


def of_gated() -> dict[str, Tensor]:
    """Parameters of a gated autoencoder besides; its `b_enc` is SAELens' `b_gate`."""
    return {"r_mag": 0.2 * draw(FEATURES, seed=6), "b_mag": 0.3 * draw(FEATURES, seed=7)}
