"""The two clips that peers compared; distances and peers make them for themselves."""

import numpy as np

RATE = 24_000


def two_clips() -> list[np.ndarray]:
    """Return two stereo clips (channel, sample) of half a second: a gliding tone, and a tone in noise."""
    time = np.arange(RATE // 2) / RATE
    glide = 0.5 * np.sin(2 * np.pi * (300 * time + 400 * time**2)) * np.exp(-3 * time)
    noise = np.random.RandomState(0).uniform(-0.1, 0.1, (2, len(time)))  # the same in every version of NumPy
    tone = 0.3 * np.sin(2 * np.pi * 660 * time) + noise
    return [np.stack([glide, 0.5 * glide]), tone]
