"""Sparse autoencoders: which features a site's activations are made of."""

from analyses.sae.run import feature_trace, is_trained, load_sae, run_sae
from analyses.sae.topk import TopKSAE
from analyses.sae.train import TrainSpec

__all__ = ["TopKSAE", "TrainSpec", "feature_trace", "is_trained", "load_sae", "run_sae"]
