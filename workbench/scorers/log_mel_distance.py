"""The log-mel distance: how far apart the levels of two clips are, by time and frequency."""

import numpy as np
from jaxtyping import Float

from workbench.scorers.clip_distance import ClipDistance, Samples
from workbench.spectrogram import FLOOR_DB, mel_power


class LogMelDistance(ClipDistance):
    """Mean absolute difference in dB of two mel spectrograms; symmetric.

    96 mel bands up to half the sample rate, in frames 10 ms apart. What is more than 80 dB below the loudest band and
    frame of both clips counts as that much below. An echo or a shift in time counts as a change: the distance hears
    levels, not music.
    """

    name = "log-mel"
    min_seconds = 0.1

    def features(self, mono: Samples, sample_rate: int) -> Float[np.ndarray, "mel frame"]:
        """Return the power in mel bands."""
        return mel_power(mono[None], sample_rate).astype(float)

    def between(
        self, ours: Float[np.ndarray, "mel frame"], reference: Float[np.ndarray, "mel frame"]
    ) -> float:
        """Return the mean absolute difference in dB."""
        floor = max(ours.max(), reference.max()) * 10 ** (FLOOR_DB / 10)
        levels = [10 * np.log10(np.maximum(power, floor)) for power in (ours, reference)]
        return float(np.abs(levels[0] - levels[1]).mean())
