"""Steering: directions that turn a concept up or down, and what it takes to find them."""

from analyses.steering.caa import caa
from analyses.steering.vector import Vector

__all__ = ["Vector", "caa"]
