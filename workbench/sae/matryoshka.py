"""Matryoshka BatchTopK: prefixes of the features must reconstruct alone (Bussmann et al. 2025, arXiv 2503.17547)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workbench.sae.base import SAE, TrainingBatch
from workbench.sae.batch_topk import BatchTopKObjective
from workbench.sae.jumprelu import JumpReLUSAE
from workbench.sae.settings import MatryoshkaSettings
from workbench.sae.sparse import Codes, decode


class MatryoshkaObjective(MatryoshkaSettings, BatchTopKObjective):
    """BatchTopK's terms, and for each prefix of the features the squared error of its reconstruction."""

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> JumpReLUSAE:
        """Return an SAE with all weights zero.

        Raises:
            UserError: if k is larger than the number of features, or the widths do not fit it.
        """
        self.prefixes(d_sae)
        return super().new_sae(d_in, d_sae, metadata)

    def further_terms(self, sae: SAE, batch: TrainingBatch, codes: Codes) -> dict[str, Tensor]:
        """Return `error_<width>` of each prefix: the mean squared error of the reconstruction by its features."""
        terms, x_hat, start = {}, sae.b_dec.expand_as(batch.target), 0
        for width in self.prefixes(sae.config.d_sae):
            x_hat = x_hat + decode(codes.within(start, width), sae.W_dec[start:width])
            terms[f"error_{width}"] = (x_hat - batch.target).square().mean()
            start = width
        return terms
