"""Steering: find directions that turn a concept up or down."""

from analyses.steering.austeer import AUSteer, austeer
from analyses.steering.caa import CAA, caa
from analyses.steering.capture import fit
from analyses.steering.pci import PCI, pci
from analyses.steering.text_embedding import TextEmbedding, text_embedding
from analyses.steering.vector import Vector, load_vector

__all__ = [
    "CAA",
    "PCI",
    "AUSteer",
    "TextEmbedding",
    "Vector",
    "austeer",
    "caa",
    "fit",
    "load_vector",
    "pci",
    "text_embedding",
]
