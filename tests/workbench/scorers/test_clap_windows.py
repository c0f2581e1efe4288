"""Clips become windows of 10 s in the same way every time."""

import numpy as np
import pytest

from workbench.scorers.windows import SAMPLE_RATE, WINDOW_SAMPLES, cut_windows, mono_48k, quantise


def ramp(seconds: float) -> np.ndarray:
    return np.arange(1, round(seconds * SAMPLE_RATE) + 1, dtype=np.float32)


def test_a_clip_of_25_s_has_three_windows_and_the_last_is_repeated() -> None:
    clip = ramp(25)
    windows, seconds = cut_windows(clip)
    assert windows.shape == (3, WINDOW_SAMPLES)
    assert seconds.tolist() == [10.0, 10.0, 5.0]
    assert np.array_equal(windows[:2].ravel(), clip[: 2 * WINDOW_SAMPLES])
    assert np.array_equal(windows[2], np.tile(clip[2 * WINDOW_SAMPLES :], 2))


def test_a_clip_of_exactly_10_s_is_one_window() -> None:
    windows, seconds = cut_windows(ramp(10))
    assert np.array_equal(windows, ramp(10)[None])
    assert seconds.tolist() == [10.0]


def test_a_short_clip_is_repeated_whole_and_then_padded_with_zeros() -> None:
    windows, seconds = cut_windows(ramp(4))
    assert np.array_equal(windows[0, : 8 * SAMPLE_RATE], np.tile(ramp(4), 2))
    assert not windows[0, 8 * SAMPLE_RATE :].any()
    assert seconds.tolist() == [4.0]


def test_quantised_samples_are_16_bit_steps_cut_towards_zero() -> None:
    step = 1 / 32767
    clip = np.array([0.0, 1.9 * step, -1.9 * step, 0.5 * step, 1.0, 3.0, -3.0], dtype=np.float32)
    expected = np.array([0.0, step, -step, 0.0, 1.0, 1.0, -1.0])
    assert quantise(clip) == pytest.approx(expected, abs=1e-9)


def test_channels_are_averaged() -> None:
    left, right = np.float32([0.5, 0.25]), np.float32([-0.5, 0.75])
    assert mono_48k(np.stack([left, right]), SAMPLE_RATE).tolist() == [0.0, 0.5]


def test_another_sample_rate_is_resampled() -> None:
    at = {
        rate: np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
        for rate in (44_100, 48_000)
    }
    resampled = mono_48k(at[44_100][None], 44_100)
    assert resampled.shape == (48_000,)
    assert resampled[2000:-2000] == pytest.approx(at[48_000][2000:-2000], abs=1e-3)
