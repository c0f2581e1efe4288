"""The log-mel distance: how far apart the levels of two clips are, by time and frequency."""

import numpy as np

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

    def distance(self, mono: Samples, reference: Samples, sample_rate: int) -> float:
        """Return the mean absolute difference in dB."""
        powers = np.stack([mel_power(clip[None], sample_rate) for clip in (mono, reference)]).astype(float)
        floor = powers.max() * 10 ** (FLOOR_DB / 10)
        levels = 10 * np.log10(np.maximum(powers, floor))
        return float(np.abs(levels[0] - levels[1]).mean())
