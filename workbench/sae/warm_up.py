"""Weights that grow at the start of training."""


def warmed_up(weight: float, fraction: float, progress: float) -> float:
    """Return a weight that grows linearly from 0 over the first `fraction` of the training."""
    return weight if progress >= fraction else weight * progress / fraction
