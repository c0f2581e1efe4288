"""A small deterministic synthesiser whose music is locked to the latent grid.

Every onset falls on a latent frame (25 per second) and every fundamental is a multiple of 12.5 Hz, half the
frame rate, so that a steady note repeats exactly every two frames. A tiny diffusion model can then learn the
music in minutes: the latents of one note are the same wherever it is played.
"""

from functools import cache

import numpy as np
from jaxtyping import Float

from benchmarks.organisms.labels import Labels, draw_labels

SAMPLE_RATE = 16_000
FRAME = 640
"""Samples per latent frame: 25 frames per second."""
GRID_HZ = 12.5
"""Every fundamental is a whole multiple of this."""
CLIP_SECONDS = 4.0

BEAT_FRAMES = {"slow": 20, "fast": 10}
BEATS_PER_CHORD = {"slow": 2, "fast": 4}

# Scales and chords as multiples of GRID_HZ, in three octaves with the tonics 200, 400 and 800 Hz. The low
# octave has its own table because half of an odd multiple would leave the grid.
_MIDDLE_SCALE = {"happy": (32, 36, 40, 43, 48, 54, 60, 64), "sad": (32, 36, 38, 43, 48, 51, 57, 64)}
_LOW_SCALE = {"happy": (16, 18, 20, 21, 24, 27, 30, 32), "sad": (16, 18, 19, 21, 24, 26, 29, 32)}
_CHORDS = {"happy": ((16, 20), (12, 18)), "sad": ((16, 19), (12, 18))}
_OCTAVE = {
    "violin": "high",
    "flute": "high",
    "piano": "middle",
    "trumpet": "middle",
    "female vocal": "middle",
    "guitar": "low",
    "male vocal": "low",
}

# Timbre: resonances as (centre Hz, half width Hz, gain), and the flute's few partials.
_RESONANCES = {
    "violin": ((450, 150, 1.0), (1000, 250, 0.8), (2800, 700, 1.0)),
    "trumpet": ((900, 500, 0.7), (1700, 700, 1.0), (2800, 1200, 0.7)),
    "female vocal": ((850, 130, 1.0), (1400, 160, 0.6), (2900, 250, 0.4), (3900, 300, 0.2)),
    "male vocal": ((550, 100, 1.0), (900, 110, 0.8), (2400, 200, 0.35), (3200, 250, 0.2)),
}
_FLUTE_PARTIALS = {1: 1.0, 2: 0.15, 3: 0.05, 4: 0.015}

_ATTACK_RELEASE = {
    "violin": (0.08, 0.08),
    "flute": (0.05, 0.06),
    "piano": (0.004, 0.06),
    "trumpet": (0.03, 0.05),
    "guitar": (0.004, 0.05),
    "female vocal": (0.06, 0.08),
    "male vocal": (0.06, 0.08),
}
_VIBRATO_DEPTH = {"violin": 0.004, "female vocal": 0.008, "male vocal": 0.008}
_VIBRATO_HZ = 6.25  # a period of four latent frames: phase-locked to the grid
_PLUCKED_DECAY = {"piano": (1.2, 0.8), "guitar": (2.0, 1.6)}  # per second: base, and per partial number
_PLUCKED_GAIN = {"piano": 1.5, "guitar": 1.7}

_FADE = 80  # samples that end every sound, against clicks


def scale(instrument: str, mood: str) -> tuple[int, ...]:
    """The eight scale degrees that `instrument` plays in `mood`, as multiples of `GRID_HZ`."""
    octave = _OCTAVE[instrument]
    if octave == "low":
        return _LOW_SCALE[mood]
    factor = 2 if octave == "high" else 1
    return tuple(factor * unit for unit in _MIDDLE_SCALE[mood])


def _resonance(instrument: str, hz: Float[np.ndarray, " partial"]) -> Float[np.ndarray, " partial"]:
    """Gain of the instrument's body or vowel at each frequency."""
    peaks = _RESONANCES[instrument]
    return np.sum([gain / (1 + ((hz - centre) / width) ** 2) for centre, width, gain in peaks], axis=0)


def _partial_amplitudes(
    instrument: str, f0: float, number: Float[np.ndarray, " partial"]
) -> Float[np.ndarray, " partial"]:
    """Amplitude of each partial (unit energy together): the timbre at the fundamental `f0` (Hz)."""
    if instrument == "violin":
        amplitude = (0.35 + _resonance(instrument, number * f0)) / number**0.8
    elif instrument == "flute":
        amplitude = np.array([_FLUTE_PARTIALS.get(int(k), 0.0) for k in number])
    elif instrument == "piano":
        amplitude = number**-1.4
    elif instrument == "trumpet":
        amplitude = _resonance(instrument, number * f0)
    elif instrument == "guitar":
        amplitude = np.abs(np.sin(np.pi * number * 0.22)) / number  # plucked at 22 % of the string
    else:
        amplitude = _resonance(instrument, number * f0) / number**0.4
    return amplitude / np.sqrt(np.sum(amplitude**2))


@cache
def note(instrument: str, unit: int, frames: int, vibrato: bool = True) -> Float[np.ndarray, " sample"]:
    """One note at ``unit * GRID_HZ``, `frames` latent frames long plus one frame in which it dies away."""
    f0 = unit * GRID_HZ
    seconds = np.arange((frames + 1) * FRAME) / SAMPLE_RATE
    phase = 2 * np.pi * f0 * seconds
    if vibrato and instrument in _VIBRATO_DEPTH:
        swing = (np.cos(2 * np.pi * _VIBRATO_HZ * seconds) - 1) / _VIBRATO_HZ
        phase = phase - f0 * _VIBRATO_DEPTH[instrument] * swing
    number = np.arange(1, int(min(30, 7600 // f0)) + 1, dtype=float)
    sound = np.zeros_like(seconds)
    for k, amplitude in zip(number, _partial_amplitudes(instrument, f0, number), strict=True):
        # Phases quadratic in the partial's number keep the crest factor low.
        partial = amplitude * np.sin(k * phase + 0.7 * k * k)
        if instrument in _PLUCKED_DECAY:
            base, per_partial = _PLUCKED_DECAY[instrument]
            partial = partial * np.exp(-seconds * (base + per_partial * k))
        sound += partial
    attack, release = _ATTACK_RELEASE[instrument]
    end = (frames + 0.9) * FRAME / SAMPLE_RATE
    sound *= np.minimum(seconds / attack, 1) * np.clip((end - seconds) / release, 0, 1)
    sound[-_FADE:] *= np.linspace(1, 0, _FADE)
    return (0.22 * _PLUCKED_GAIN.get(instrument, 1.0) * sound).astype(np.float32)


@cache
def drum(kind: str) -> Float[np.ndarray, " sample"]:
    """One stroke of the "kick", "snare" or "hat"; always the same samples."""
    duration = {"kick": 0.2, "snare": 0.12, "hat": 0.04}[kind]
    seconds = np.arange(int(duration * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(len(kind)).standard_normal(len(seconds))
    if kind == "kick":
        sweep = 50 * seconds + 3.6 * (1 - np.exp(-seconds / 0.03))
        sound = 0.8 * np.sin(2 * np.pi * sweep) * np.exp(-18 * seconds)
    elif kind == "snare":
        sound = 0.4 * (noise + np.sin(2 * np.pi * 190 * seconds)) * np.exp(-30 * seconds)
    else:
        bright = np.convolve(noise, (1, -2, 1), "same")  # second difference: leaves the high frequencies
        sound = 0.16 * bright * np.exp(-80 * seconds)
    sound[-_FADE:] *= np.linspace(1, 0, _FADE)
    return sound.astype(np.float32)


def _add(
    mix: Float[np.ndarray, " sample"],
    sound: Float[np.ndarray, " sound_sample"],
    frame: int,
    gain: float = 1.0,
) -> None:
    """Add `sound` to `mix` in place from latent frame `frame` on, cut at the end of `mix`."""
    start = frame * FRAME
    length = min(len(sound), len(mix) - start)
    if length > 0:
        mix[start : start + length] += gain * sound[:length]


def _melody(beats: int, beats_per_chord: int, rng: np.random.Generator) -> list[int]:
    """Scale degree (0 to 7) of each beat: chord tones where the chord changes, steps and returns to the third
    between.
    """
    degrees: list[int] = []
    for beat in range(beats):
        if beat % beats_per_chord == 0:
            degree = int(rng.choice((0, 2, 4)))
        elif rng.random() < 0.7:
            degree = int(np.clip(degrees[-1] + rng.choice((-2, -1, 1, 2)), 0, 7))
        else:
            degree = 2
        degrees.append(degree)
    return degrees


def synthesise(
    labels: Labels, rng: np.random.Generator, seconds: float = CLIP_SECONDS
) -> Float[np.ndarray, " sample"]:
    """Return a mono clip at `SAMPLE_RATE` that matches `labels`; `rng` chooses the melody only.

    The tempo sets the beat (every 20 or 10 frames), the mood the scale and chords (minor or major), the
    instrument plays melody and chords, and the drums alternate kick and snare on the beat with a hat between.
    """
    mix = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    beat_frames, beats_per_chord = BEAT_FRAMES[labels.tempo], BEATS_PER_CHORD[labels.tempo]
    beats = int(np.ceil(len(mix) / (FRAME * beat_frames)))
    degrees = scale(labels.instrument, labels.mood)
    chord_octave = 2 if _OCTAVE[labels.instrument] == "high" else 1
    for beat, degree in enumerate(_melody(beats, beats_per_chord, rng)):
        frame = beat * beat_frames
        _add(mix, note(labels.instrument, degrees[degree], beat_frames), frame)
        if beat % beats_per_chord == 0:
            for unit in _CHORDS[labels.mood][(beat // beats_per_chord) % 2]:
                chord_note = note(
                    labels.instrument, unit * chord_octave, beat_frames * beats_per_chord, False
                )
                _add(mix, chord_note, frame, gain=0.3)
        if labels.drums == "with drums":
            _add(mix, drum("kick" if beat % 2 == 0 else "snare"), frame)
            _add(mix, drum("hat"), frame + beat_frames // 2)
    return (np.tanh(1.3 * mix) / 1.3).astype(np.float32)


def clip_labels(seed: int, index: int) -> Labels:
    """Labels of clip number `index` of the endless data set `seed`."""
    return draw_labels(np.random.default_rng((seed, index)))


def labelled_clip(
    seed: int, index: int, seconds: float = CLIP_SECONDS
) -> tuple[Float[np.ndarray, " sample"], Labels]:
    """Clip number `index` of the endless data set `seed`, and its labels."""
    rng = np.random.default_rng((seed, index))
    labels = draw_labels(rng)
    return synthesise(labels, rng, seconds), labels


def dataset(n: int, seed: int, first: int = 0) -> tuple[Float[np.ndarray, "clip sample"], list[Labels]]:
    """Clips `first` to ``first + n - 1`` of the data set `seed`, and their labels."""
    clips, labels = zip(*(labelled_clip(seed, first + i) for i in range(n)), strict=True)
    return np.stack(clips), list(labels)
