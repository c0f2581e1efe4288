"""Features that two autoencoders share, planted: permuted copies are found, random ones are not."""

import numpy as np
import pytest

from analyses.sae import matching
from analyses.sae.matching import centred, match_features, similarities
from tests.tolerances import FLOAT32

EACH_WAY = [matching.MOST_ONE_TO_ONE, 8]
"""Limits with which forty features are matched one to one, and each with its nearest."""


def directions(count: int, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


@pytest.mark.parametrize("limit", EACH_WAY)
@pytest.mark.parametrize("block", [7, 1024])
def test_a_permuted_and_rescaled_copy_is_matched_exactly(
    limit: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "MOST_ONE_TO_ONE", limit)
    monkeypatch.setattr(matching, "BLOCK", block)
    own, order = directions(40), np.random.default_rng(1).permutation(40)
    found = match_features(own, 3 * own[order])
    assert (found.match is None) == (limit == 8)
    assert order[found.chosen].tolist() == list(range(40))
    assert found.is_mutual.all()
    assert similarities(own, 3 * own[order], found.chosen) == pytest.approx(np.ones(40), abs=FLOAT32)


@pytest.mark.parametrize("limit", EACH_WAY)
def test_random_features_are_not_alike(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MOST_ONE_TO_ONE", limit)
    own, other = directions(40, 256), directions(40, 256, seed=9)
    found = match_features(own, other)
    assert np.median(similarities(own, other, found.chosen)) < 0.3
    assert found.is_mutual.mean() < 1


def test_each_is_matched_once_or_has_its_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies of a direction have one counterpart."""
    own = directions(10)
    own[1] = own[0]
    other = directions(10)
    once = match_features(own, other)
    assert sorted(once.chosen) == list(range(10))
    monkeypatch.setattr(matching, "MOST_ONE_TO_ONE", 8)
    nearest = match_features(own, other)
    assert nearest.chosen.tolist() == [0, 0, *range(2, 10)]
    assert nearest.is_mutual.sum() == 9


def test_fewer_features_and_empty_profiles_have_no_match() -> None:
    own = directions(10)
    own[3] = 0
    found = match_features(own, own[:5])
    assert found.chosen.tolist() == [0, 1, 2, -1, 4] + [-1] * 5
    assert found.back.tolist() == [0, 1, 2, -1, 4]
    assert found.is_mutual.tolist() == [True, True, True, False, True] + [False] * 5
    assert np.isnan(similarities(own, own[:5], found.chosen)).tolist() == (found.chosen < 0).tolist()
    nothing = match_features(np.zeros((3, 4), np.float32), own[:, :4])
    assert nothing.chosen.tolist() == [-1] * 3


def test_the_similarity_of_clip_means_is_pearsons_correlation() -> None:
    rng = np.random.default_rng(3)
    own, other = rng.random((30, 6)), rng.random((30, 6))
    own[:, 2] = 0.1
    found = similarities(centred(own), centred(other), np.arange(6))
    expected = [np.corrcoef(own[:, f], other[:, f])[0, 1] if f != 2 else np.nan for f in range(6)]
    assert found == pytest.approx(np.array(expected), nan_ok=True)
