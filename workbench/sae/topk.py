"""TopK: the k largest features of each row are active (Gao et al. 2024, arXiv 2406.04093)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from cache.errors import UserError
from workbench.sae.base import SAE, Objective, SAEConfig, TrainingBatch, TrainingStep
from workbench.sae.settings import TopKSettings
from workbench.sae.sparse import decode, fired, largest

# Mean squares below this are rounding error.
ROUNDING = 1e-12


class TopKConfig(SAEConfig):
    """Sizes of a TopK SAE, and the number of features that may be active on a row."""

    FIXED: ClassVar[Mapping[str, Any]] = {**SAEConfig.FIXED, "rescale_acts_by_decoder_norm": False}

    architecture: Literal["topk"] = "topk"
    k: int = Field(ge=1)

    @model_validator(mode="after")
    def _k_fits(self) -> "TopKConfig":
        if self.k > self.d_sae:
            raise ValueError(f"k is {self.k}, but the autoencoder has only {self.d_sae} features")
        return self


class TopKSAE(SAE):
    """SAE with `activate(pre) = TopK_k(relu(pre))`: at most k features of each row are positive, all others are 0."""

    SELECTS: ClassVar[bool] = True

    config: TopKConfig

    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Keep the k largest pre-activations of each row, if positive; set all others to 0."""
        return keep_largest(torch.relu(pre), self.config.k)


class TopKObjective(TopKSettings, Objective):
    """Squared error, plus `aux_coefficient` times the auxiliary loss, which revives dead features."""

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> SAE:
        """Return a TopK SAE with all weights zero; raise UserError if k is larger than the number of features."""
        check_k(self.k, d_sae)
        return TopKSAE(TopKConfig(d_in=d_in, d_sae=d_sae, k=self.k, metadata=dict(metadata)))

    def step(self, sae: SAE, batch: TrainingBatch) -> TrainingStep:
        """Return the mean squared error, and the weighted auxiliary loss while any feature is dead."""
        codes = sae.active_codes(batch.x, partial(largest, k=self.k))
        x_hat = decode(codes, sae.W_dec) + sae.b_dec
        terms = {"error": functional.mse_loss(x_hat, batch.target)}
        if self.aux_coefficient and batch.dead.any():
            residual = (batch.target - x_hat).detach()
            terms["auxiliary"] = self.aux_coefficient * auxiliary_loss(sae, batch, residual)
        return TrainingStep(terms, x_hat, fired(codes, sae.config.d_sae))


def check_k(k: int, d_sae: int) -> None:
    """Raise UserError if k is larger than the number of features."""
    if k > d_sae:
        raise UserError(f"k is {k}, but the autoencoder has only {d_sae} features. Give a smaller k.")


def auxiliary_loss(
    sae: SAE, batch: TrainingBatch, residual: Float[Tensor, "row channel"]
) -> Float[Tensor, ""]:
    """Return the squared error of predicting the residual from dead features, relative to the residual's square.

    Each row uses its largest dead features, half as many as there are channels (Gao et al. 2024, appendix A.2).
    """
    features = batch.dead.nonzero()[:, 0]
    count = min(len(features), residual.shape[-1] // 2)
    prediction = keep_largest(sae.pre_activations_of(batch.x, features), count) @ sae.W_dec[features]
    square = batch.sharing.mean(residual.square().mean())
    return (prediction - residual).square().mean() / square.clamp(min=ROUNDING)


def keep_largest(values: Float[Tensor, "*rows feature"], k: int) -> Float[Tensor, "*rows feature"]:
    """Return `values` with all but the k largest of each row set to 0."""
    largest = values.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(values).scatter(-1, largest.indices, largest.values)
