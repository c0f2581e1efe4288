"""Steering: find directions that turn a concept up or down."""

from analyses.steering.caa import caa
from analyses.steering.vector import Vector

__all__ = ["Vector", "caa"]
