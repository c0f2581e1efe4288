"""Sparse autoencoders as modules: architectures, what each is trained for, and their folder on disk."""

from workbench.sae.architectures import ARCHITECTURES, Architecture
from workbench.sae.base import SAE, Encoding, Objective, SAEConfig, TrainingBatch
from workbench.sae.folder import load_folder, save_folder
from workbench.sae.topk import TopKConfig, TopKObjective, TopKSAE

__all__ = [
    "ARCHITECTURES",
    "SAE",
    "Architecture",
    "Encoding",
    "Objective",
    "SAEConfig",
    "TopKConfig",
    "TopKObjective",
    "TopKSAE",
    "TrainingBatch",
    "load_folder",
    "save_folder",
]
