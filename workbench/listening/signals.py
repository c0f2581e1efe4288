"""Sounds that a listening study makes itself: the low anchor, headphone tests, and tones to count."""

import numpy as np
from jaxtyping import Float

from cache.errors import UserError

Audio = Float[np.ndarray, "channel sample"]

ANCHOR_HZ = 3500.0
"""End of the anchor's pass band; 500 Hz above, the attenuation is 60 dB (BS.1534-3 asks for 25, and 50 at 4.5 kHz)."""
_TRANSITION_HZ = 500.0
_ATTENUATION_DB = 60.0

TEST_RATE = 44_100
_NOISE_SECONDS, _GAP_SECONDS, _RAMP_SECONDS = 1.0, 0.5, 0.03
_PITCH_HZ, _BAND = 600.0, 0.06
_NOISE_RMS = 0.08

_TONE_HZ, _TONE_SECONDS, _TONE_EVERY = 1000.0, 0.12, 0.45
_TONE_PEAK, _BED_PEAK = 0.25, 0.1


def low_anchor(audio: Audio, sample_rate: int) -> Audio:
    """Return the low anchor of MUSHRA: audio without what is above 3.5 kHz (ITU-R BS.1534-3), not delayed.

    Raises:
        UserError: if the sample rate is too low for the filter.
    """
    from scipy.signal import fftconvolve, firwin, kaiserord

    if sample_rate < 2 * (ANCHOR_HZ + _TRANSITION_HZ) + 1:
        raise UserError(
            f"The anchor of MUSHRA needs audio of more than {2 * (ANCHOR_HZ + _TRANSITION_HZ):g} Hz, not {sample_rate} "
            "Hz. Resample it, or use another design."
        )
    taps, beta = kaiserord(_ATTENUATION_DB, _TRANSITION_HZ / (sample_rate / 2))
    taps |= 1  # an odd number: whole samples of delay, which "same" takes away
    low = firwin(taps, ANCHOR_HZ + _TRANSITION_HZ / 2, window=("kaiser", beta), fs=sample_rate)
    return np.stack([fftconvolve(channel, low)[taps // 2 :][: audio.shape[1]] for channel in audio])


def huggins_pitch(place: int, seed: int) -> Audio:
    """Return a headphone test: three noises of a second, of which the one at `place` has a Huggins pitch.

    The same white noise is in both channels, but around 600 Hz (± 6 %) the phase of the right one goes from 0 to 2π.
    The tone that this makes is heard only if each ear gets its own channel (Milne et al., Behavior Research Methods 53,
    2021), and is in neither channel.
    """
    rng = np.random.default_rng(seed)
    gap = np.zeros((2, round(_GAP_SECONDS * TEST_RATE)))
    parts: list[np.ndarray] = []
    for number in range(3):
        noise = rng.standard_normal(round(_NOISE_SECONDS * TEST_RATE))
        spectrum = np.fft.rfft(noise)
        shift = np.zeros(len(spectrum))
        if number == place:
            hertz = np.fft.rfftfreq(len(noise), 1 / TEST_RATE)
            low, high = _PITCH_HZ * (1 - _BAND), _PITCH_HZ * (1 + _BAND)
            shift = 2 * np.pi * np.clip((hertz - low) / (high - low), 0, 1)
        right = np.fft.irfft(spectrum * np.exp(1j * shift), len(noise))
        both = np.stack([noise, right]) * _NOISE_RMS
        parts += [_faded(both), gap]
    return np.concatenate(parts[:-1], axis=1)


def with_tones(audio: Audio, sample_rate: int, tones: int) -> Float[np.ndarray, "channel longer"]:
    """Return audio, made quieter and repeated if it is short, with a number of short tones of 1 kHz, from 0 on."""
    seconds = max(audio.shape[1] / sample_rate, (tones + 1) * _TONE_EVERY)
    length = round(seconds * sample_rate)
    repeated = np.tile(audio, (1, -(-length // max(audio.shape[1], 1))))[:, :length]
    peak = float(np.abs(repeated).max(initial=0.0))
    made = repeated * (_BED_PEAK / peak if peak else 0.0)
    times = np.arange(round(_TONE_SECONDS * sample_rate)) / sample_rate
    window = np.hanning(len(times))
    tone = _TONE_PEAK * window * np.sin(2 * np.pi * _TONE_HZ * times)
    for number in range(tones):
        start = round((number + 0.5) * _TONE_EVERY * sample_rate)
        made[:, start : start + len(tone)] += tone
    return made


def _faded(audio: Audio) -> Audio:
    """Return audio with short ramps at both ends."""
    n = round(_RAMP_SECONDS * TEST_RATE)
    ramp = np.sin(np.linspace(0, np.pi / 2, n)) ** 2
    shape = np.ones(audio.shape[1])
    shape[:n], shape[-n:] = ramp, ramp[::-1]
    return audio * shape
