"""Metrics of a sparse autoencoder, with their formulas and conventions.

x is a row of activations, x_hat its reconstruction, z its feature activations; sums run over all rows added so far, be
it those of all denoising steps or of one.

- explained variance: `1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2`, with the mean per channel over the rows.
  Perfect reconstruction gives 1, predicting the mean gives 0, anything worse is negative. SAELens' convention since
  6.45.1; its older values are relative to zero instead of the mean and are higher. That of one step is relative to the
  mean of its rows: over all steps together, the differences between the steps' means count as variance, too.
- normalised error: mean over rows of `||x - x_hat||^2 / ||x||^2`. Perfect reconstruction gives 0, predicting zero
  gives 1. Zero rows are left out.
- L0: mean over rows of the number of positive features.
- dead fraction: fraction of the features that are positive on no row.
- dense fraction: fraction of the features that are positive on more than a tenth of the rows (`DENSE`).
"""

import torch
from jaxtyping import Float
from torch import Tensor

EXPLAINED_VARIANCE = "1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2 over held-out tokens"
DENSE = 0.1
"""A feature that is positive on more than this fraction of the rows is dense."""


class Reconstruction:
    """The metrics above, accumulated in float64 over batches of any size."""

    def __init__(self, d_in: int, d_sae: int) -> None:
        self._rows = 0
        self._mean = torch.zeros(d_in, dtype=torch.float64)
        self._spread = 0.0
        self._error = torch.zeros(d_in, dtype=torch.float64)
        self._ratio = 0.0
        self._nonzero_rows = 0
        self._fired = torch.zeros(d_sae, dtype=torch.int64)

    def add(
        self,
        x: Float[Tensor, "row channel"],
        x_hat: Float[Tensor, "row channel"],
        acts: Float[Tensor, "row feature"],
    ) -> None:
        """Add a batch."""
        x = x.double().cpu()
        errors = (x - x_hat.double().cpu()).square()
        error = errors.sum(-1)
        square = x.square().sum(-1)
        nonzero = square > 0
        mean = x.mean(0)
        self._add_spread(len(x), mean, (x - mean).square().sum().item())
        self._error += errors.sum(0)
        self._ratio += (error[nonzero] / square[nonzero]).sum().item()
        self._nonzero_rows += int(nonzero.sum())
        self._fired += (acts > 0).sum(0).cpu()

    def merge(self, other: "Reconstruction") -> None:
        """Add all rows of another."""
        self._add_spread(other._rows, other._mean, other._spread)
        self._error += other._error
        self._ratio += other._ratio
        self._nonzero_rows += other._nonzero_rows
        self._fired += other._fired

    def _add_spread(self, rows: int, mean: Float[Tensor, " channel"], spread: float) -> None:
        # Chan, Golub & LeVeque (1979): sums about the mean of both parts together, without cancellation.
        if not rows:
            return
        both = self._rows + rows
        shift = mean - self._mean
        self._spread += spread + shift.square().sum().item() * self._rows * rows / both
        self._mean += shift * rows / both
        self._rows = both

    @property
    def squared_error(self) -> float:
        """Mean over rows and channels of the squared error, in squared units of the activations."""
        return self.scaled_error(torch.ones(1, dtype=torch.float64))

    def scaled_error(self, factor: Float[Tensor, " _"]) -> float:
        """Return the squared error of activations multiplied by a factor, or by one of each channel."""
        return (self._error * factor.square()).sum().item() / (self._rows * len(self._mean))

    @property
    def explained_variance(self) -> float:
        """Fraction of the variance about the mean that is reconstructed; NaN when all rows are equal."""
        return 1 - self._error.sum().item() / self._spread if self._spread > 0 else float("nan")

    @property
    def normalised_error(self) -> float:
        """Mean squared error of a row relative to its squared norm; NaN when every row is zero."""
        return self._ratio / self._nonzero_rows if self._nonzero_rows else float("nan")

    @property
    def l0(self) -> float:
        """Mean number of positive features of a row."""
        return int(self._fired.sum()) / self._rows

    @property
    def dead_fraction(self) -> float:
        """Fraction of the features that were positive on no row."""
        return (self._fired == 0).double().mean().item()

    @property
    def dense_fraction(self) -> float:
        """Fraction of the features that were positive on more than the fraction `DENSE` of the rows."""
        return (self._fired > DENSE * self._rows).double().mean().item()


def explained_variance(x: Float[Tensor, "row channel"], x_hat: Float[Tensor, "row channel"]) -> float:
    """Return the explained variance of one batch."""
    metrics = Reconstruction(x.shape[-1], 1)
    metrics.add(x, x_hat, x.new_zeros((len(x), 1)))
    return metrics.explained_variance
