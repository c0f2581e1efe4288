"""Steering: find directions that turn a concept up or down."""

from analyses.steering.austeer import AUSteer, austeer
from analyses.steering.caa import CAA, caa
from analyses.steering.capture import fit
from analyses.steering.concept_free import concept_free
from analyses.steering.concept_slider import concept_slider
from analyses.steering.descriptor import MeasuredClips, descriptor, measured_clips
from analyses.steering.feature_steering import FeatureSteering, feature_steering
from analyses.steering.free_sliders import FreeSliders, free_sliders
from analyses.steering.nulls import random_vectors
from analyses.steering.pci import PCI, pci
from analyses.steering.probe_direction import Probe, probe
from analyses.steering.published_features import vector_from_scores
from analyses.steering.sae_features import SAEFeatures, sae_features
from analyses.steering.shuffled import shuffled, shuffled_clips
from analyses.steering.slider import Slider, load_slider, published_slider
from analyses.steering.stacking import interference, stack
from analyses.steering.text_embedding import TextEmbedding, text_embedding
from analyses.steering.token_embedding import (
    TokenEmbedding,
    token_embedding,
    token_embedding_from_published,
)
from analyses.steering.vector import Vector, load_vector

__all__ = [
    "CAA",
    "PCI",
    "AUSteer",
    "FeatureSteering",
    "FreeSliders",
    "MeasuredClips",
    "Probe",
    "SAEFeatures",
    "Slider",
    "TextEmbedding",
    "TokenEmbedding",
    "Vector",
    "austeer",
    "caa",
    "concept_free",
    "concept_slider",
    "descriptor",
    "feature_steering",
    "fit",
    "free_sliders",
    "interference",
    "load_slider",
    "load_vector",
    "measured_clips",
    "pci",
    "probe",
    "published_slider",
    "random_vectors",
    "sae_features",
    "shuffled",
    "shuffled_clips",
    "stack",
    "text_embedding",
    "token_embedding",
    "token_embedding_from_published",
    "vector_from_scores",
]
