"""Linear probes: where and when a concept can be read out of the activations."""
