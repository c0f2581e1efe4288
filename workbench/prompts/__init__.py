"""Prompts: sets of them, captions, and counterfactual pairs."""
