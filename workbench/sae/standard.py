"""The standard SAE: ReLU, with the sum of the activations (L1) as sparsity term (Bricken et al. 2023).

The sum is weighted by the norms of the decoder rows, which are free (Conerly et al., Circuits Update, April 2024).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.sae.base import SAE, Objective, SAEConfig, TrainingBatch, TrainingStep
from workbench.sae.free_decoder import INITIAL_NORM, clip_gradient, move_norms
from workbench.sae.settings import StandardSettings
from workbench.sae.warm_up import warmed_up


class StandardConfig(SAEConfig):
    """Sizes of a standard SAE."""

    architecture: Literal["standard"] = "standard"


class StandardSAE(SAE):
    """SAE with `activate(pre) = relu(pre)`."""

    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Keep the positive pre-activations; set all others to 0."""
        return torch.relu(pre)


class FreeDecoder(Objective):
    """An objective whose sparsity term weighs features by the norms of their decoder rows, which are free."""

    @property
    def initial_norm(self) -> float:
        """Norm of the decoder rows before training."""
        return INITIAL_NORM

    def constrain_gradient(self, sae: SAE) -> None:
        """Clip the gradient's norm."""
        clip_gradient(sae)

    def constrain(self, sae: SAE) -> None:
        """Leave the decoder rows as they are."""

    def trained(self, sae: SAE) -> SAE:
        """Return the SAE with decoder rows of unit norm and the same reconstructions."""
        move_norms(sae)
        return sae


class StandardObjective(StandardSettings, FreeDecoder):
    """Squared error, and `l1_coefficient` times the sum of the weighted activations.

    The sum is per channel, as the squared error is: the mean over rows, divided by the number of channels. So a
    coefficient weighs as much as in SAELens, where neither is divided.
    """

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> StandardSAE:
        """Return a standard SAE with all weights zero."""
        return StandardSAE(StandardConfig(d_in=d_in, d_sae=d_sae, metadata=dict(metadata)))

    def step(self, sae: SAE, batch: TrainingBatch) -> TrainingStep:
        """Return the mean squared error and the L1 term."""
        acts = sae.encode(batch.x)
        x_hat = sae.decode(acts)
        weight = warmed_up(self.l1_coefficient, self.warm_up, batch.progress)
        terms = {"error": (x_hat - batch.target).square().mean(), "l1": weight * weighted_l1(sae, acts)}
        return TrainingStep(terms, x_hat, (acts > 0).sum(0))


def weighted_l1(sae: SAE, acts: Float[Tensor, "row feature"]) -> Float[Tensor, ""]:
    """Return the sum of the activations times the norms of their decoder rows: mean over rows, per channel."""
    return (acts @ sae.W_dec.norm(dim=1)).mean() / sae.config.d_out
