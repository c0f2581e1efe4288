"""Train SAELens' autoencoders on given rows, and write each as a folder that `load_folder` reads.

Run by `benchmarks.sae_planted` with the interpreter of an environment that has sae-lens; imports nothing from this
project.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer


def batches(rows: np.ndarray, size: int) -> Iterator[torch.Tensor]:
    """Yield batches of rows in their order, again and again."""
    while True:
        for first in range(0, len(rows) - size + 1, size):
            yield torch.from_numpy(rows[first : first + size])


def train(rows: np.ndarray, settings: dict[str, Any], folder: Path) -> None:
    """Train an autoencoder of `settings`: architecture, options, first directions, and those of the trainer."""
    sae_class, config_class = get_sae_training_class(settings["architecture"])
    sae = sae_class(config_class(d_in=rows.shape[1], **settings["options"]))
    start = sae.cfg.decoder_init_norm * torch.from_numpy(np.load(settings["directions"]))
    sae.W_dec.data.copy_(start)
    sae.W_enc.data.copy_(start.T)
    size = settings["batch_size"]
    config = SAETrainerConfig(
        total_training_samples=settings["train_steps"] * size,
        train_batch_size_samples=size,
        n_batches_for_norm_estimate=len(rows) // size,
        logger=LoggingConfig(log_to_wandb=False),
        **settings["trainer"],
    )
    SAETrainer(config, sae, batches(rows, size)).fit()
    if settings["fold_norms"]:
        sae.fold_W_dec_norm()
    sae.save_inference_model(folder)


def main() -> None:
    """Train on `sys.argv[1]` (npy of rows) all autoencoders of the JSON `sys.argv[2]`, by their folders."""
    rows = np.load(sys.argv[1], mmap_mode="c")
    for folder, settings in json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")).items():
        train(rows, settings, Path(folder))


if __name__ == "__main__":
    main()
