"""BatchTopK: a batch's largest features are active, k a row on average (Bussmann et al. 2024, arXiv 2412.06410)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.sae.base import SAE, Objective, Sharing, TrainingBatch, TrainingStep
from workbench.sae.free_decoder import INITIAL_NORM, clip_gradient, move_norms
from workbench.sae.jumprelu import JumpReLUConfig, JumpReLUSAE
from workbench.sae.settings import BatchTopKSettings
from workbench.sae.sparse import Codes, Selection, decode, fired, largest_of_batch
from workbench.sae.topk import auxiliary_loss, check_k

# Weight of a batch in the running mean of the threshold: about the last ten batches count. The smallest activations
# fall as the learning rate does at the end; a longer mean lags behind, and single rows have fewer than k features.
THRESHOLD_RATE = 0.1


class BatchTopKObjective(BatchTopKSettings, Objective):
    """The objective of TopK, with the k largest features a row on average over the batch.

    It trains a JumpReLU SAE: of a row alone, those features are active whose pre-activation is above the threshold,
    one for all features. That is the mean over batches of the smallest activation that was kept.

    With free norms of decoder rows, what is compared is an activation times the norm of its decoder row: what it adds.
    """

    @property
    def _is_free(self) -> bool:
        return self.decoder_norm == "free"

    @property
    def initial_norm(self) -> float:
        """Norm of the decoder rows before training."""
        return INITIAL_NORM if self._is_free else super().initial_norm

    def constrain_gradient(self, sae: SAE) -> None:
        """Of free decoder rows, clip the gradient's norm; of others, remove the gradient along them."""
        if self._is_free:
            clip_gradient(sae)
        else:
            super().constrain_gradient(sae)

    def constrain(self, sae: SAE) -> None:
        """Give the decoder rows unit norm, unless they are free."""
        if not self._is_free:
            super().constrain(sae)

    def trained(self, sae: SAE) -> SAE:
        """Return the SAE with decoder rows of unit norm; the threshold is one for such rows already."""
        if self._is_free:
            assert isinstance(sae, JumpReLUSAE)
            threshold = sae.threshold.detach().clone()
            move_norms(sae)
            sae.threshold.data.copy_(threshold)
        return sae

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> JumpReLUSAE:
        """Return an SAE with all weights zero.

        Raises:
            UserError: if k is larger than the number of features.
        """
        check_k(self.k, d_sae)
        of_training = {"training_architecture": self.architecture, "training_k": self.k}
        return JumpReLUSAE(JumpReLUConfig(d_in=d_in, d_sae=d_sae, metadata={**metadata, **of_training}))

    def step(self, sae: SAE, batch: TrainingBatch) -> TrainingStep:
        """Return the terms of TopK's loss, and bring the SAE's threshold up to date."""
        sharing = batch.sharing
        select: Selection = partial(
            largest_of_batch, k=self.k, sharing=sharing.size, gathered=sharing.gathered
        )
        weight = sae.W_dec.detach().norm(dim=1) if self._is_free else None
        codes = sae.active_codes(batch.x, select if weight is None else weighted(select, weight))
        active = codes.value.detach()
        update_threshold(sae, active if weight is None else active * weight[codes.feature], sharing)
        x_hat = decode(codes, sae.W_dec) + sae.b_dec
        terms = {"error": (x_hat - batch.target).square().mean(), **self.further_terms(sae, batch, codes)}
        if self.aux_coefficient and batch.dead.any():
            residual = (batch.target - x_hat).detach()
            terms["auxiliary"] = self.aux_coefficient * auxiliary_loss(sae, batch, residual)
        return TrainingStep(terms, x_hat, fired(codes, sae.config.d_sae))

    def further_terms(self, sae: SAE, batch: TrainingBatch, codes: Codes) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the terms that an objective has besides: none here."""
        return {}


def weighted(select: Selection, weight: Float[Tensor, " feature"]) -> Selection:
    """Return the selection of pre-activations times a positive weight of each feature; its codes are not weighted."""

    def chosen(pre: Float[Tensor, "row feature"]) -> Codes:
        codes = select(pre * weight)
        return codes._replace(value=codes.value / weight[codes.feature])

    return chosen


@torch.no_grad()
def update_threshold(sae: SAE, active: Float[Tensor, " code"], sharing: Sharing) -> None:
    """Move a JumpReLU SAE's threshold, the same of all features, towards the smallest of a batch's activations.

    The first batch sets it: a threshold of 0 is none yet.
    """
    assert isinstance(sae, JumpReLUSAE)
    none = sae.threshold.new_full((1,), torch.inf)  # a process may have no active feature
    positive = active[active > 0].to(none.dtype)
    smallest = sharing.gathered(torch.cat([positive, none]).min()[None]).min()
    if smallest < torch.inf:
        moved = torch.lerp(sae.threshold, smallest.expand_as(sae.threshold), THRESHOLD_RATE)
        sae.threshold.copy_(torch.where(sae.threshold > 0, moved, smallest))
