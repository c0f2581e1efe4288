"""The musicnn scorer against the original's front end and TensorFlow graph (`make_musicnn_fixtures.py`)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles.musicnn_clips import SAMPLE_RATE, clips
from tests.tolerances import assert_close
from workbench.scorers.musicnn import MusicnnScorer
from workbench.scorers.musicnn_network import FRAMES

FIXTURE = Path(__file__).parent / "fixtures" / "musicnn" / "outputs.npz"
LIMIT = 1e-6  # of the spectrogram's logarithms, which are computed in float64 up to their rounding


@pytest.fixture(scope="module")
def scorer() -> MusicnnScorer:
    return MusicnnScorer()


@pytest.fixture(scope="module")
def original() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


def test_the_front_end_is_the_originals(scorer: MusicnnScorer, original: dict[str, np.ndarray]) -> None:
    for clip, expected in zip(clips(), original["spectrogram"], strict=True):
        found = scorer.spectrogram(clip[None], SAMPLE_RATE)[:FRAMES].numpy()
        assert expected.max() > 2
        np.testing.assert_allclose(found, expected, rtol=0, atol=LIMIT)


def test_the_network_is_the_originals(scorer: MusicnnScorer, original: dict[str, np.ndarray]) -> None:
    for spectrogram, expected in zip(original["spectrogram"], original["first"], strict=True):
        found = scorer.tag_probabilities(torch.from_numpy(spectrogram)[None])[0]
        assert_close(found, expected)


def test_probabilities_of_clips_are_the_originals(
    scorer: MusicnnScorer, original: dict[str, np.ndarray]
) -> None:
    for clip, expected in zip(clips(), original["probability"], strict=True):
        found = scorer.probabilities(clip[None], SAMPLE_RATE)
        assert expected.max() > 0.2
        assert_close(found, expected)
