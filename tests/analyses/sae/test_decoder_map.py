"""The map of an autoencoder's features."""

import numpy as np

from analyses.sae.decoder_map import decoder_map
from tests.tolerances import assert_close


def test_the_axes_are_the_two_directions_of_largest_variance() -> None:
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, 200)
    decoder = np.zeros((201, 12))
    decoder[:200, 3], decoder[:200, 7] = np.cos(angle), np.sin(angle)
    decoder[:200] *= random.uniform(0.5, 4, (200, 1))  # lengths do not matter
    places, shares = decoder_map(decoder)
    assert_close(float(shares.sum()), 1.0)
    apart = np.linalg.norm(places[:100] - places[100:200], axis=1)
    assert_close(apart, 2 * np.abs(np.sin((angle[:100] - angle[100:]) / 2)))


def test_a_decoder_of_one_channel_has_a_map() -> None:
    places, shares = decoder_map(np.array([[1.0], [-2.0], [0.0]]))
    assert places.shape == (3, 2)
    assert_close(shares, np.array([1.0, 0.0]))
