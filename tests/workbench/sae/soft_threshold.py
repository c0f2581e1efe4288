"""An architecture for tests: features above a learned threshold, with an L1 penalty for sparsity."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from workbench.sae.architectures import Architecture
from workbench.sae.base import SAE, Objective, SAEConfig, TrainingBatch, TrainingStep


class SoftThresholdConfig(SAEConfig):
    architecture: Literal["soft_threshold"] = "soft_threshold"


class SoftThresholdSAE(SAE):
    threshold: nn.Parameter

    @classmethod
    def shapes(cls, config: SAEConfig) -> dict[str, tuple[int, ...]]:
        return {**super().shapes(config), "threshold": (config.d_sae,)}

    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        return torch.relu(pre - self.threshold)

    @torch.no_grad()
    def unscale(self, factor: float) -> None:
        super().unscale(factor)
        self.threshold.div_(factor)


class SoftThresholdObjective(Objective):
    architecture: Literal["soft_threshold"] = "soft_threshold"
    l1_coefficient: float = Field(0.1, ge=0)

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> SoftThresholdSAE:
        return SoftThresholdSAE(SoftThresholdConfig(d_in=d_in, d_sae=d_sae, metadata=dict(metadata)))

    def step(self, sae: SAE, batch: TrainingBatch) -> TrainingStep:
        acts = sae.encode(batch.x)
        x_hat = sae.decode(acts)
        terms = {
            "error": (x_hat - batch.target).square().mean(),
            "l1": self.l1_coefficient * acts.sum(-1).mean(),
        }
        return TrainingStep(terms, x_hat, (acts > 0).sum(0))


SOFT_THRESHOLD = Architecture(SoftThresholdConfig, SoftThresholdSAE, SoftThresholdObjective)
