"""Time training steps of another library's TopK autoencoder on given rows: seconds of each step, as JSON.

Run by `benchmarks.sae_training` with the interpreter of an environment that has sae-lens and eai-sparsify; imports
nothing from this project. The first step warms up and is not counted.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import numpy as np
import torch


def saelens(rows: torch.Tensor, features: int, k: int, sparse: bool = False) -> Callable[[], object]:
    """The step of SAELens' trainer; `sparse` is its option for sparse activations, which it leaves off."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    # Its sparse activations have no gradient on a CPU if they are rescaled.
    config = TopKTrainingSAEConfig(
        d_in=rows.shape[1],
        d_sae=features,
        k=k,
        use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=not sparse,
    )
    training = SAETrainerConfig(total_training_samples=10**9, train_batch_size_samples=len(rows), lr_end=3e-5)
    trainer = SAETrainer(training, TopKTrainingSAE(config), iter(()))
    return lambda: trainer.step(rows)


def sparsify(rows: torch.Tensor, features: int, k: int) -> Callable[[], object]:
    """sparsify's module with what its trainer does in a step: its trainer itself needs a language model."""
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(rows.shape[1], SparseCoderConfig(num_latents=features, k=k))
    optimiser = torch.optim.Adam(coder.parameters(), lr=3e-4)
    dead = torch.zeros(features, dtype=torch.bool)
    fired = torch.zeros(features, dtype=torch.bool)

    def step() -> None:
        coder.set_decoder_norm_to_unit_norm()
        total_variance = (rows - rows.mean(0)).pow(2).sum()
        out = coder(rows, dead_mask=dead, total_variance=total_variance)
        fired[out.latent_indices.flatten()] = True
        (out.fvu + out.auxk_loss / 32 + out.multi_topk_fvu / 8).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()

    return step


PEERS: dict[str, Callable[..., Callable[[], object]]] = {
    "saelens": saelens,
    "saelens_sparse": partial(saelens, sparse=True),
    "sparsify": sparsify,
}


def main() -> None:
    """Measure the peer `sys.argv[1]` on the rows in `sys.argv[2]` (npy) and print the seconds."""
    name, file = sys.argv[1:3]
    features, k, steps, threads = map(int, sys.argv[3:7])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = PEERS[name](torch.from_numpy(np.load(file)), features, k)
    step()
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
