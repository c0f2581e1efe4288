"""Gated: one encoder decides which features are active, and another how strongly (Rajamanoharan et al. 2024).

arXiv 2404.16014. Both share their weights but for a scale and a bias of each feature.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.sae.base import SAE, SAEConfig, TrainingBatch, TrainingStep
from workbench.sae.settings import GatedSettings
from workbench.sae.standard import FreeDecoder, weighted_l1
from workbench.sae.warm_up import warmed_up


class GatedConfig(SAEConfig):
    """Sizes of a gated SAE."""

    architecture: Literal["gated"] = "gated"


class GatedSAE(SAE):
    """SAE with `activate(pre) = relu(exp(r_mag) (pre - b_enc) + b_mag)` where `pre > 0`, 0 elsewhere.

    `b_enc` is the bias of the gate (`b_gate` in SAELens), so that `pre_activations` are the gate's.
    """

    STORED_NAMES: ClassVar[Mapping[str, str]] = {"b_enc": "b_gate"}

    r_mag: nn.Parameter
    b_mag: nn.Parameter

    @classmethod
    def shapes(cls, config: SAEConfig) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter."""
        return {**super().shapes(config), "r_mag": (config.d_sae,), "b_mag": (config.d_sae,)}

    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Return the magnitudes of the features whose gate is open; set all others to 0."""
        return torch.relu((pre - self.b_enc) * self.r_mag.exp() + self.b_mag) * (pre > 0)

    @torch.no_grad()
    def unscale(self, factor: float) -> None:
        """Divide all biases by the factor of the inputs."""
        super().unscale(factor)
        self.b_mag.div_(factor)

    @torch.no_grad()
    def scale_features(self, factor: Float[Tensor, " feature"]) -> None:
        """Multiply both encoders, and divide decoder rows."""
        super().scale_features(factor)
        self.b_mag.mul_(factor)

    @torch.no_grad()
    def shift_input(self, shift: Float[Tensor, " channel"]) -> None:
        """Shift the biases of both encoders."""
        before = self.b_enc.clone()
        super().shift_input(shift)
        self.b_mag.add_((self.b_enc - before) * self.r_mag.exp())


class GatedObjective(GatedSettings, FreeDecoder):
    """Squared error, L1 of the positive gate pre-activations, and the squared error of their reconstruction.

    The last term trains the gate. As in SAELens, it trains the decoder, too, and L1 is weighted by the norms of the
    decoder's free rows; in the paper, the decoder is frozen in the last term and its rows have unit norm.
    """

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> GatedSAE:
        """Return a gated SAE with all weights zero."""
        return GatedSAE(GatedConfig(d_in=d_in, d_sae=d_sae, metadata=dict(metadata)))

    def step(self, sae: SAE, batch: TrainingBatch) -> TrainingStep:
        """Return the mean squared error, the L1 term and the gate's own squared error."""
        pre = sae.pre_activations(batch.x)
        acts = sae.activate(pre)
        x_hat = sae.decode(acts)
        gate = torch.relu(pre)
        terms = {
            "error": (x_hat - batch.target).square().mean(),
            "l1": warmed_up(self.l1_coefficient, self.warm_up, batch.progress) * weighted_l1(sae, gate),
            "gate_error": (sae.decode(gate) - batch.target).square().mean(),
        }
        return TrainingStep(terms, x_hat, (acts > 0).sum(0))
