"""Training with decoder rows of any norm, in which features are weighed by the norms of their rows.

Making features smaller and their rows longer then gains nothing. Rows are short at first, so that the first training
steps turn them towards the data (Conerly et al., Circuits Update, April 2024). At the end, the norms are moved into the
features, so that rows have unit norm as after every other training.
"""

import torch
from torch import nn

from workbench.sae.base import SAE

INITIAL_NORM = 0.1
"""Norm of the decoder rows before training."""


def clip_gradient(sae: SAE) -> None:
    """Clip the gradient's norm, as SAELens does: to 1, of a loss that is summed over channels.

    The first gradients are so large that Adam, which remembers a thousand steps, would take small steps long after.
    """
    nn.utils.clip_grad_norm_(sae.parameters(), 1 / sae.config.d_out)


def move_norms(sae: SAE) -> None:
    """Divide decoder rows by their norms, and multiply the features by them: the same reconstructions."""
    norms = sae.W_dec.detach().norm(dim=1)
    sae.scale_features(torch.where(norms > 0, norms, 1))
