"""The multi-resolution STFT distance (Yamamoto et al. 2020, Parallel WaveGAN, arXiv:1910.11480)."""

import numpy as np
from jaxtyping import Float

from workbench.scorers.clip_distance import ClipDistance, Samples

Magnitudes = Float[np.ndarray, "bin frame"]

RATE = 24_000
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""Lengths of transform, hop and window in samples at `RATE`, as published."""
FLOOR = 1e-7
"""Smallest power, as in the authors' code."""


class StftDistance(ClipDistance):
    """Spectral convergence plus mean absolute difference of log magnitudes, the mean over three resolutions.

    At a sample rate other than 24 kHz, windows and hops have the same duration as published. Spectral convergence is
    relative to the reference's magnitudes, so that the distance is not symmetric. No unit: magnitudes' logarithms are
    natural ones.
    """

    name = "mr-stft"
    min_seconds = 0.1

    def features(self, mono: Samples, sample_rate: int) -> list[Magnitudes]:
        """Return the magnitudes of each resolution."""
        scaled = [[round(size * sample_rate / RATE) for size in sizes] for sizes in RESOLUTIONS]
        return [magnitudes(mono, *sizes) for sizes in scaled]

    def between(self, ours: list[Magnitudes], reference: list[Magnitudes]) -> float:
        """Return the mean over the resolutions."""
        terms = [
            spectral_convergence(one, other) + log_magnitude_difference(one, other)
            for one, other in zip(ours, reference, strict=True)
        ]
        return float(np.mean(terms))


def magnitudes(mono: Samples, length: int, hop: int, window: int) -> Magnitudes:
    """Return STFT magnitudes, at least the square root of `FLOOR`: frames centred, their ends mirrored."""
    import torch  # slow to import

    wave = torch.stft(
        torch.from_numpy(mono),
        length,
        hop,
        window,
        window=torch.hann_window(window, dtype=torch.float64),
        return_complex=True,
    )
    return wave.abs().square().clamp(min=FLOOR).sqrt().numpy()


def spectral_convergence(ours: Magnitudes, reference: Magnitudes) -> float:
    """Return the Frobenius norm of the difference, relative to the reference's norm."""
    return float(np.linalg.norm(reference - ours) / np.linalg.norm(reference))


def log_magnitude_difference(ours: Magnitudes, reference: Magnitudes) -> float:
    """Return the mean absolute difference of the natural logarithms."""
    return float(np.abs(np.log(ours) - np.log(reference)).mean())
