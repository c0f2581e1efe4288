"""Sparse autoencoders as modules: their architectures, their training objectives, and their folder on disk."""
