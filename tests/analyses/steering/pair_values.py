"""Random outputs of pairs, given to fits as a model's runs would give them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from analyses.steering.capture import Fit, PairCapture, PairValues
from workbench.engine.sites import Site

Outputs = Mapping[str, np.ndarray]
"""By site, dims (pair, side, pass, step, token, channel); the clean side is first."""


def random_outputs(captured: PairCapture, widths: Sequence[int], tokens: int = 3, seed: int = 0) -> Outputs:
    """Outputs with exact zeros and ties among their differences."""
    draws = np.random.default_rng(seed)
    capture = captured.capture
    sizes = (captured.n_pairs, 2, len(capture.passes), len(capture.steps), tokens)
    return {
        str(site): draws.integers(-2, 3, (*sizes, width)).astype(float)
        for site, width in zip(capture.sites, widths, strict=True)
    }


def give(fit: Fit, outputs: Outputs, per_batch: int = 2) -> None:
    """Give outputs to a fit in batches of pairs, step by step."""
    for first in range(0, len(next(iter(outputs.values()))), per_batch):
        for step in range(next(iter(outputs.values())).shape[3]):
            for site, values in outputs.items():
                clean, corrupt = (
                    torch.from_numpy(values[first : first + per_batch, side, :, step]) for side in (0, 1)
                )
                fit.add(PairValues(Site.parse(site), step, first, clean, corrupt))
