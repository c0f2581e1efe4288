"""Sparse autoencoders: decompose a site's activations into features."""
