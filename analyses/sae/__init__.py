"""Sparse autoencoders: which features a site's activations are made of."""

from analyses.sae.run import feature_trace, is_trained, load_sae, run_sae
from analyses.sae.train import TrainSpec, train_spec

__all__ = ["TrainSpec", "feature_trace", "is_trained", "load_sae", "run_sae", "train_spec"]
