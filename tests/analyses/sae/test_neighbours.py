"""Nearest features against all pairs at once."""

import numpy as np
import pytest

from analyses.sae import neighbours as neighbours_module
from analyses.sae.neighbours import (
    NEIGHBOURS,
    coactive_neighbours,
    decoder_neighbours,
    sampled_rows,
)
from tests.analyses.sae.sparse_codes import AXES, random_acts, sparse
from tests.tolerances import assert_close

FEATURES = 9


@pytest.fixture(params=[2, 1024])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(neighbours_module, "FEATURES_AT_ONCE", request.param)
    return int(request.param)


@pytest.mark.usefixtures("at_once")
def test_decoder_neighbours_have_the_largest_cosines() -> None:
    w_dec = np.random.default_rng(0).normal(size=(FEATURES, 4)).astype(np.float32)
    alive = np.arange(FEATURES) != 3
    index, cosine = decoder_neighbours(w_dec, alive)
    norms = np.linalg.norm(w_dec, axis=1)
    every = w_dec @ w_dec.T / np.outer(norms, norms)
    every[:, ~alive] = -np.inf
    np.fill_diagonal(every, -np.inf)
    for feature in np.flatnonzero(alive):
        best = np.argsort(-every[feature])[:NEIGHBOURS]
        assert index[feature].tolist() == best.tolist()
        assert_close(cosine[feature], every[feature, best])
    assert index[3].tolist() == [-1] * NEIGHBOURS
    assert np.isnan(cosine[3]).all()


def test_few_living_features_have_few_neighbours() -> None:
    alive = np.array([True, False, True])
    index, cosine = decoder_neighbours(np.eye(3, dtype=np.float32), alive)
    assert index[:, :2].tolist() == [[2, -1], [-1, -1], [0, -1]]
    assert cosine[0, 0] == 0
    assert (decoder_neighbours(np.eye(1, dtype=np.float32), np.array([True]))[0] == -1).all()


@pytest.mark.usefixtures("at_once")
def test_coactive_neighbours_share_the_most_rows() -> None:
    acts = random_acts(4, FEATURES, density=0.2)
    acts[..., 1] = acts[..., 0]
    acts[..., 2] = 0
    acts[0, 0] = 0
    acts[0, 0, 2] = 1  # active alone
    sample = sampled_rows(map(sparse, acts), 4, AXES)
    active = acts.reshape(-1, FEATURES) > 0
    np.testing.assert_array_equal(sample.toarray(), active)
    index, jaccard = coactive_neighbours(sample)
    both = active.T.astype(float) @ active
    either = active.sum(0)[:, None] + active.sum(0) - both
    every = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    np.fill_diagonal(every, 0)
    assert (index[0, 0], jaccard[0, 0]) == (1, 1)
    for feature in range(FEATURES):
        expected = np.sort(every[feature])[::-1][:NEIGHBOURS]
        assert_close(np.nan_to_num(jaccard[feature]), expected)
        found = index[feature][index[feature] >= 0]
        assert_close(every[feature, found], expected[: len(found)])
        assert (expected[len(found) :] == 0).all()
    assert (index[[2, FEATURES - 1]] == -1).all()


def test_rows_are_sampled_evenly_and_bounded_by_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    acts = random_acts(4, FEATURES)
    monkeypatch.setattr(neighbours_module, "SAMPLED_ROWS", 12)
    sample = sampled_rows(map(sparse, acts), 4, AXES).toarray()
    assert sample.shape == (12, FEATURES)
    for clip, rows in enumerate(np.split(sample, 4)):
        assert all((row == (acts[clip] > 0)).all(axis=1).any() for row in rows)
    monkeypatch.setattr(neighbours_module, "COUNTED_PAIRS", 20.0)
    few = sampled_rows(map(sparse, acts), 4, AXES).toarray()
    assert 0 < len(few) < 12
    assert (few.sum(axis=1) ** 2).sum() <= 20
