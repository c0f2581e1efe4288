"""A TopK autoencoder with random weights."""

import torch

from workbench.sae.topk import TopKConfig, TopKSAE


def random_sae(d_in: int = 6, d_sae: int = 20, k: int = 3) -> TopKSAE:
    sae = TopKSAE(TopKConfig(d_in=d_in, d_sae=d_sae, k=k, metadata={"hook_name": "tf1.cross_attn"}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return sae
