"""Hand-made tunes."""

import numpy as np

RATE = 16_000
SEMITONES = np.array([0, 4, 7, 12, 5, 9, 2, 7])


def tune(transposed: int = 0, bpm: float = 120, delay: float = 0.0, seconds: float = 4.0) -> np.ndarray:
    """Return a mono clip (channel, sample): a click and a decaying note of three partials a beat.

    `transposed` is in semitones; the first beat is after `delay` seconds, when the last note before it ends.
    """
    time = np.arange(round(seconds * RATE)) / RATE - delay
    beat = np.floor(time * bpm / 60)
    hertz = 261.63 * 2 ** ((SEMITONES[beat.astype(int) % len(SEMITONES)] + transposed) / 12)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    partials = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    since = time - beat * 60 / bpm
    clicks = np.exp(-80 * since) * np.sin(2 * np.pi * 3000 * since)
    return (0.2 * partials * np.exp(-3 * since) + 0.4 * clicks)[None].astype(np.float32)
