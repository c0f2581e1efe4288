"""How the inputs of a sparse autoencoder are centred and scaled while it is trained."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from analyses.sae.spec import InputScale
from cache.errors import UserError
from workbench.sae.base import SAE

# Mean and spread of the inputs are measured on at most this many rows.
MEASURED_ROWS = 65_536
# Variance below this fraction of the mean square is rounding.
ROUNDING = 1e-12

LabelledRows = Iterable[tuple[Float[Tensor, "_row channel"], Int64[Tensor, " _row"]]]
"""Batches of rows with the positions of their steps among `steps`; no positions at all where they do not matter."""


class Scale(NamedTuple):
    """What inputs are centred with and multiplied by: one row for all steps, or one for each."""

    mean: Float[Tensor, "step channel"]
    factor: Float[Tensor, "step _"]  # one column for all channels, or one for each
    steps: tuple[int, ...]  # of the rows; empty if there is one for all
    ratio: Float[np.ndarray, " step"]  # norm of the mean over the spread about it

    def apply(
        self, x: Float[Tensor, "row channel"], step: Int64[Tensor, " _row"]
    ) -> Float[Tensor, "row channel"]:
        """Scale rows of the positions `step`."""
        if self.steps:
            return (x.float() - self.mean[step]) * self.factor[step]
        return (x.float() - self.mean[0]) * self.factor[0]

    def to(self, device: str | torch.device) -> "Scale":
        """Return it on a device."""
        return self._replace(mean=self.mean.to(device), factor=self.factor.to(device))


def measure(rows: LabelledRows, kind: InputScale, steps: tuple[int, ...]) -> Scale:
    """Measure the scale on up to `MEASURED_ROWS` rows.

    After scaling the mean of every channel is 0, and the variance is 1: its mean over channels ("global", and "step" at
    every step), or that of each channel ("channel"). "uncentred" is "global" without taking the mean away.

    Args:
        rows: the rows with their steps.
        kind: what is scaled alike.
        steps: the steps that positions refer to.

    Raises:
        UserError: if the rows (of a step) are not finite, or all equal.
    """
    groups = len(steps) if kind == "step" else 1
    count, total, square = np.zeros(groups), np.zeros((groups, 1)), np.zeros((groups, 1))
    for batch, step in rows:
        values = batch.cpu().double().numpy()
        place = step.cpu().numpy() if kind == "step" else np.zeros(len(values), dtype=int)
        of_group = np.equal.outer(np.arange(groups), place).astype(float)
        count, total, square = (
            count + of_group.sum(1),
            total + of_group @ values,
            square + of_group @ values**2,
        )
        if count.sum() >= MEASURED_ROWS:
            break
    n = np.maximum(count, 1)[:, None]
    mean = total / n
    variance = square / n - mean**2
    if kind != "channel":
        variance = variance.mean(1, keepdims=True)
    floor = ROUNDING * (square / n).mean(1, keepdims=True)
    if not (variance.mean(1, keepdims=True) > floor).all():
        raise UserError(
            "Activations must be finite and not all equal to train a sparse autoencoder; these "
            f"{int(count.sum())} rows are not{' at every step' if kind == 'step' else ''}."
        )
    spread = np.sqrt(np.maximum(square / n - mean**2, 0).sum(1))
    # A channel that never changes is centred only.
    factor = np.where(variance > floor, np.maximum(variance, floor), 1.0) ** -0.5
    return Scale(
        torch.from_numpy(np.zeros_like(mean) if kind == "uncentred" else mean).float(),
        torch.from_numpy(factor).float(),
        steps if kind == "step" else (),
        np.linalg.norm(mean, axis=1) / spread,
    )


@torch.no_grad()
def folded(sae: SAE, scales: Sequence[Scale]) -> SAE:
    """Return the SAE for unscaled inputs that is equivalent to `sae` for scaled ones; `sae` is used up.

    Feature activations are in the unit of the inputs, or, of inputs scaled per channel, in that of the scaled ones.
    Inputs scaled per step need an SAE that knows the steps (`SAE.at`).

    Args:
        sae: the SAE for scaled inputs.
        scales: the scale of the inputs, and for a transcoder that of its targets.
    """
    inputs, targets = scales[0], scales[-1]
    if inputs.steps:
        metadata = {**sae.config.metadata, "scaled_steps": list(inputs.steps)}
        weights = {**sae.state_dict(), "step_mean": inputs.mean, "step_factor": inputs.factor}
        return type(sae)(sae.config.model_copy(update={"metadata": metadata}), weights)
    if inputs.factor.shape[1] == 1:
        sae.unscale(inputs.factor.item())
    else:
        sae.W_enc.mul_(inputs.factor.T)
        sae.W_dec.div_(inputs.factor)
        sae.b_dec.div_(inputs.factor[0])
    sae.shift(inputs.mean[0])
    if targets is not inputs:
        ratio = (inputs.factor / targets.factor).item()
        sae.W_dec.mul_(ratio)
        sae.b_dec.mul_(ratio).add_(targets.mean[0])
    return sae
