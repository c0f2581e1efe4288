"""Matching the features of two autoencoders: planted permutations, noise, and different numbers of features."""

import numpy as np
import pytest
import torch

from analyses.sae.stability import THRESHOLDS, stability
from cache.errors import UserError
from tests.workbench.sae.random_sae import random_sae
from workbench.sae.topk import TopKSAE


def changed(sae: TopKSAE, decoder: torch.Tensor) -> TopKSAE:
    other = random_sae(sae.config.d_in, len(decoder))
    with torch.no_grad():
        other.W_dec.copy_(decoder)
    return other


def test_a_permuted_and_rescaled_copy_is_matched_wholly() -> None:
    sae = random_sae(16, 30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    found = stability(sae, {"copy": changed(sae, 3 * sae.W_dec[order])})
    assert found["matched_share"].sel(other="copy").values.tolist() == [1.0] * len(THRESHOLDS)
    assert found["matched_cosine"].values == pytest.approx(np.ones((1, 30)))
    assert order[found["matched_feature"].values[0]].tolist() == list(range(30))


def test_the_share_is_that_of_the_features_found_twice() -> None:
    """Ten of 30 features are new random directions, whose cosines with the old ones are small."""
    sae = random_sae(256, 30)
    decoder = sae.W_dec.detach().clone()
    decoder[:10] = torch.randn(10, 256, generator=torch.Generator().manual_seed(2))
    found = stability(sae, {"half": changed(sae, decoder), "same": sae})
    assert found["matched_share"].sel(threshold=0.7).values == pytest.approx([20 / 30, 1.0])
    assert (found["matched_cosine"].sel(other="half")[:10] < 0.5).all()


def test_each_feature_is_matched_once() -> None:
    """Two copies of a feature have one counterpart, so that one of them is left without a close match."""
    sae = random_sae(64, 10)
    decoder = sae.W_dec.detach().clone()
    with torch.no_grad():
        sae.W_dec[1] = sae.W_dec[0]
    found = stability(sae, {"other": changed(sae, decoder)})
    assert found["matched_share"].sel(threshold=0.9).item() == pytest.approx(9 / 10)


def test_features_without_a_match_count_as_not_found() -> None:
    sae = random_sae(64, 10)
    found = stability(sae, {"fewer": changed(sae, sae.W_dec[:4])})
    assert found["matched_share"].sel(threshold=0.9).item() == pytest.approx(4 / 10)
    assert found["matched_feature"].values[0].tolist() == [0, 1, 2, 3] + [-1] * 6
    assert np.isnan(found["matched_cosine"].values[0, 4:]).all()


def test_other_widths_are_refused() -> None:
    with pytest.raises(UserError, match="'narrow' has 8 channels"):
        stability(random_sae(16, 30), {"narrow": random_sae(8, 30)})
