"""Give clips the same loudness (ITU-R BS.1770), as loud as asked for where none of them clips."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cache.errors import UserError

Audio = Float[np.ndarray, "channel sample"]

HIGHEST_PEAK_DB = -1.0
"""Highest true peak in dB relative to full scale (EBU R 128)."""
_OVERSAMPLING = 4


def loudness(audio: Audio, sample_rate: int, name: str) -> float:
    """Return the integrated loudness in LUFS.

    Raises:
        UserError: if the clip, called `name`, is silent, has samples that are not finite, or is shorter than
            0.4 s, the length of a block.
    """
    import pyloudnorm

    meter = pyloudnorm.Meter(sample_rate)
    if audio.shape[1] < meter.block_size * sample_rate:
        raise UserError(f"{name} is too short: a clip must have at least {meter.block_size:g} s.")
    found = float(meter.integrated_loudness(np.ascontiguousarray(audio.T, dtype=float)))
    if not np.isfinite(audio).all():
        raise UserError(f"{name} has samples that are not finite numbers. Leave it out.")
    if not np.isfinite(found):
        raise UserError(f"{name} is silent, so it cannot be made as loud as the others. Leave it out.")
    return found


def true_peak(audio: Audio) -> float:
    """Return the true peak in dB relative to full scale, of four times as many samples (ITU-R BS.1770, annex 2)."""
    from scipy.signal import resample_poly

    peak = np.abs(resample_poly(audio, _OVERSAMPLING, 1, axis=1)).max(initial=0.0)
    return float(20 * np.log10(max(peak, np.abs(audio).max(initial=0.0), 1e-12)))


def common_loudness(asked: float, measured: Sequence[tuple[float, float]]) -> float:
    """Return the loudness that all clips can have: as asked, or less so that no true peak is above -1 dB.

    `measured` has the loudness and the true peak of every clip.
    """
    return min([asked, *(found - peak + HIGHEST_PEAK_DB for found, peak in measured)])


def in_stereo(audio: Audio) -> Float[np.ndarray, "ear sample"]:
    """Return two channels: what is played to both ears is louder than one channel says."""
    return np.repeat(audio, 2, axis=0) if audio.shape[0] == 1 else audio
