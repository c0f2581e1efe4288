"""Distances against other implementations, whose numbers `make_distance_fixtures.py` wrote."""

import json
from pathlib import Path

import numpy as np

from tests.oracles.distance_clips import RATE, two_clips
from tests.tolerances import assert_close
from workbench.scorers.distances import load_distance

FIXTURE = Path(__file__).parent / "fixtures" / "distances.json"


def test_the_multi_resolution_stft_distance_is_auralosss() -> None:
    one, other = two_clips()
    found = load_distance("mr-stft").compare(np.stack([one, other]), np.stack([other, one]), RATE)
    assert_close(found, json.loads(FIXTURE.read_text())["mr-stft"])
