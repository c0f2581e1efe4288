"""Clips that both sides of the comparison with musicnn make for themselves."""

import numpy as np

SAMPLE_RATE = 16_000


def clips() -> np.ndarray:
    """Three clips (clip, sample) of 7 s at 16 kHz: a rising tone, pulses with vibrato, and a chord with a beat."""
    t = np.arange(7 * SAMPLE_RATE) / SAMPLE_RATE
    rising = 0.3 * np.sin(2 * np.pi * (110 * t + 120 * t**2))
    vibrato = np.sin(2 * np.pi * (440 * t + 3 * np.sin(2 * np.pi * 5 * t)))
    pulses = 0.4 * vibrato * (np.sin(2 * np.pi * 2 * t) > 0.5)
    chord = sum((0.1 / k * np.sin(2 * np.pi * 220 * k * t) for k in range(1, 9)), np.zeros_like(t))
    beat = 0.5 * np.sin(2 * np.pi * 60 * t) * np.exp(-8 * (t % 0.5))
    return np.stack([rising, pulses, chord + beat])
