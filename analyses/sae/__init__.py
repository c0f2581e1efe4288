"""Sparse autoencoders: which features a site's activations are made of."""
