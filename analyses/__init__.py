"""Computations from traces, caches and scores to labelled results."""
