"""The learning rate's course."""

import math


def cosine(step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Learning rate factor: linear warm-up over `warmup` steps, times half a cosine from 1 to `floor`."""
    return min(1.0, (step + 1) / warmup) * (
        floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
