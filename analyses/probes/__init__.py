"""Linear probes: from which sites and steps a concept can be decoded."""
