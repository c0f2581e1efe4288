"""Mel spectrograms against librosa's."""

import numpy as np
import pytest

from tests.tolerances import assert_close
from workbench.scorers.librosa_import import import_librosa
from workbench.spectrogram import FLOOR_DB, mel_filters, mel_spectrogram


@pytest.mark.parametrize(("rate", "samples"), [(16_000, 16_000), (48_000, 30_011), (1000, 1500)])
def test_a_spectrogram_is_librosas(rate: int, samples: int) -> None:
    random = np.random.default_rng(0)
    audio = random.standard_normal((2, samples)) * np.exp(-np.arange(samples) / samples * 12)
    audio = audio.astype(np.float32)
    length = 2048 if rate == 48_000 else 1024
    power = import_librosa().feature.melspectrogram(
        y=audio.mean(axis=0), sr=rate, n_fft=length, hop_length=rate // 100, n_mels=96
    )
    assert_close(
        mel_spectrogram(audio, rate), import_librosa().power_to_db(power, ref=np.max, top_db=-FLOOR_DB)
    )
    assert_close(
        mel_filters(rate, length, 96), import_librosa().filters.mel(sr=rate, n_fft=length, n_mels=96)
    )


def test_frames_leave_out_no_sample() -> None:
    audio = np.zeros((1, 16_000), dtype=np.float32)
    audio[0, 8000 + 300] = 1.0
    levels = mel_spectrogram(audio, 16_000, hop_seconds=1.0)
    assert levels.shape == (96, 16)  # 1024 samples apart
    assert levels.max(axis=0).argmax() == 8
