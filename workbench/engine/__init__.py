"""The engine: sites, edits, and how edits are applied in a denoiser call."""
