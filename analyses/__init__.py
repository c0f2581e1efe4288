"""Computations that turn traces, caches and scores into labelled results."""
