"""The sounds a listening study makes itself."""

import numpy as np
import pytest

from cache.errors import UserError
from tests.tolerances import FLOAT64, difference
from workbench.listening.signals import TEST_RATE, huggins_pitch, low_anchor, with_tones

RATE = 32_000


@pytest.mark.parametrize(
    ("hertz", "lowest", "highest"),
    [(1000, -0.1, 0.1), (3500, -0.1, 0.1), (4000, -200, -25), (4500, -200, -50)],
)
def test_the_anchor_keeps_and_removes_what_bs_1534_says(hertz: int, lowest: float, highest: float) -> None:
    sine = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)[None]
    low = low_anchor(sine, RATE)
    inner = slice(RATE // 4, 3 * RATE // 4)
    gain = 10 * np.log10(np.mean(low[:, inner] ** 2) / np.mean(sine[:, inner] ** 2) + 1e-20)
    assert lowest <= gain <= highest
    if hertz <= 3500:
        assert np.abs(low[:, inner] - sine[:, inner]).max() < 0.02  # not delayed


def test_the_anchor_needs_a_sample_rate() -> None:
    with pytest.raises(UserError, match="8000"):
        low_anchor(np.zeros((1, 100)), 8000)


def test_huggins_pitch_is_between_the_ears_only() -> None:
    audio = huggins_pitch(1, seed=0)
    length = TEST_RATE  # of a noise; they are 1.5 s apart
    parts = [audio[:, start : start + length] for start in (0, TEST_RATE * 3 // 2, 3 * TEST_RATE)]
    hertz = np.fft.rfftfreq(length, 1 / TEST_RATE)
    near = (hertz > 575) & (hertz < 625)
    for place, part in enumerate(parts):
        left, right = np.abs(np.fft.rfft(part))
        same = difference(part[0], part[1]) < FLOAT64
        assert same == (place != 1)
        # In one ear alone, there is no more energy at the pitch than elsewhere.
        assert 0.8 < (right[near] ** 2).mean() / (left[near] ** 2).mean() < 1.25
    # Around 600 Hz the channels are in opposite phase, elsewhere equal.
    left, right = np.fft.rfft(parts[1])
    phase = np.angle(left * right.conj())
    assert np.abs(phase[np.abs(hertz - 600) < 2]).min() > 2.5
    assert np.abs(phase[(hertz > 700) & (hertz < 2000)]).mean() < 0.3


@pytest.mark.parametrize("tones", [0, 1, 5])
def test_tones_can_be_counted(tones: int) -> None:
    made = with_tones(np.full((2, RATE // 2), 0.5), RATE, tones)
    assert np.abs(made).max() < 1
    frames = (made[0, : made.shape[1] // 320 * 320].reshape(-1, 320) - 0.1).std(axis=1) > 0.05
    assert int((np.diff(frames.astype(int), prepend=0) == 1).sum()) == tones
