"""Steering: find directions that turn a concept up or down."""

from analyses.steering.caa import caa
from analyses.steering.vector import Vector, load_vector

__all__ = ["Vector", "caa", "load_vector"]
