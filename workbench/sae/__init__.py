"""Sparse autoencoders as modules: architectures, what each is trained for, and their folder on disk."""
