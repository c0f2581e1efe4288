"""BatchTopK: a batch's largest features are active, k a row on average (Bussmann et al. 2024, arXiv 2412.06410)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from workbench.sae.base import SAE, Objective, Sharing, TrainingBatch, TrainingStep
from workbench.sae.jumprelu import JumpReLUConfig, JumpReLUSAE
from workbench.sae.settings import BatchTopKSettings
from workbench.sae.sparse import Codes, decode, fired, largest_of_batch
from workbench.sae.topk import auxiliary_loss, check_k

# Weight of a batch in the running mean of the threshold: about the last ten batches count. The smallest activations
# fall as the learning rate does at the end; a longer mean lags behind, and single rows have fewer than k features.
THRESHOLD_RATE = 0.1


class BatchTopKObjective(BatchTopKSettings, Objective):
    """The objective of TopK, with the k largest features a row on average over the batch.

    It trains a JumpReLU SAE: of a row alone, those features are active whose pre-activation is above the threshold,
    one for all features. That is the mean over batches of the smallest activation that was kept.
    """

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
        select = partial(largest_of_batch, k=self.k, sharing=sharing.size, gathered=sharing.gathered)
        codes = sae.active_codes(batch.x, select)
        update_threshold(sae, codes, sharing)
        x_hat = decode(codes, sae.W_dec) + sae.b_dec
        terms = {"error": (x_hat - batch.target).square().mean(), **self.further_terms(sae, batch, codes)}
        if self.aux_coefficient and batch.dead.any():
            residual = (batch.target - x_hat).detach()
            terms["auxiliary"] = self.aux_coefficient * auxiliary_loss(sae, batch, residual)
        return TrainingStep(terms, x_hat, fired(codes, sae.config.d_sae))

    def further_terms(self, sae: SAE, batch: TrainingBatch, codes: Codes) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the terms that an objective has besides: none here."""
        return {}


@torch.no_grad()
def update_threshold(sae: SAE, codes: Codes, sharing: Sharing) -> None:
    """Move a JumpReLU SAE's threshold, the same of all features, towards the smallest activation of the batch.

    The first batch sets it: a threshold of 0 is none yet.
    """
    assert isinstance(sae, JumpReLUSAE)
    none = sae.threshold.new_full((1,), torch.inf)  # a process may have no active feature
    positive = codes.value[codes.value > 0].to(none.dtype)
    smallest = sharing.gathered(torch.cat([positive, none]).min()[None]).min()
    if smallest < torch.inf:
        moved = torch.lerp(sae.threshold, smallest.expand_as(sae.threshold), THRESHOLD_RATE)
        sae.threshold.copy_(torch.where(sae.threshold > 0, moved, smallest))
