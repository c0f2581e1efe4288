"""The engine: sites, edits, and one call of a denoiser in which they act."""
