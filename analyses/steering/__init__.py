"""Steering: find directions that turn a concept up or down."""

from analyses.steering.austeer import AUSteer, austeer
from analyses.steering.caa import CAA, caa
from analyses.steering.capture import fit
from analyses.steering.feature_steering import FeatureSteering, feature_steering
from analyses.steering.free_sliders import FreeSliders, free_sliders
from analyses.steering.pci import PCI, pci
from analyses.steering.published_features import vector_from_scores
from analyses.steering.sae_features import SAEFeatures, sae_features
from analyses.steering.text_embedding import TextEmbedding, text_embedding
from analyses.steering.vector import Vector, load_vector

__all__ = [
    "CAA",
    "PCI",
    "AUSteer",
    "FeatureSteering",
    "FreeSliders",
    "SAEFeatures",
    "TextEmbedding",
    "Vector",
    "austeer",
    "caa",
    "feature_steering",
    "fit",
    "free_sliders",
    "load_vector",
    "pci",
    "sae_features",
    "text_embedding",
    "vector_from_scores",
]
