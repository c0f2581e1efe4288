"""ACE-Step v1 3.5B: a diffusers-style implementation that loads the published checkpoint."""
