"""Evaluation: what the model does with an SAE in the place of a site, and when features are changed."""
