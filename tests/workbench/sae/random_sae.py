"""Autoencoders with random weights."""

from typing import TypeVar

import torch

from workbench.sae.architectures import ARCHITECTURES
from workbench.sae.base import SAE
from workbench.sae.topk import TopKConfig, TopKSAE

Kind = TypeVar("Kind", bound=SAE)


def random_sae(d_in: int = 6, d_sae: int = 20, k: int = 3) -> TopKSAE:
    return randomised(
        TopKSAE(TopKConfig(d_in=d_in, d_sae=d_sae, k=k, metadata={"hook_name": "tf1.cross_attn"}))
    )


def sae_of_steps(d_in: int, steps: list[int]) -> TopKSAE:
    """One whose inputs were scaled per step, all weights zero."""
    return TopKSAE(TopKConfig(d_in=d_in, d_sae=10, k=3, metadata={"scaled_steps": steps}))


def random_kind(architecture: str, d_in: int = 6, d_sae: int = 20) -> SAE:
    """What an architecture's objective trains, with its default settings."""
    objective = ARCHITECTURES[architecture].objective.model_validate({})
    return randomised(objective.new_sae(d_in, d_sae, {"hook_name": "tf1.cross_attn"}))


def randomised(sae: Kind) -> Kind:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn.abs() / 2 if name == "threshold" else drawn)
    return sae
