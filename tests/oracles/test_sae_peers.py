"""The TopK autoencoder against an independent dense formula, and against SAELens where it is installed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.sae.topk import TopKConfig, TopKSAE


@pytest.fixture
def sae() -> TopKSAE:
    generator = torch.Generator().manual_seed(0)
    sae = TopKSAE(TopKConfig(d_in=16, d_sae=64, k=8, metadata={"hook_name": "tf1.cross_attn"}))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return sae


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(200, 16, generator=torch.Generator().manual_seed(1))


def test_forward_is_the_dense_formula(sae: TopKSAE, rows: torch.Tensor) -> None:
    w_enc, b_enc, w_dec, b_dec = (
        getattr(sae.double(), name).detach().numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    expected = []
    for x in rows.double().numpy():
        pre = np.einsum("c,cf->f", x - b_dec, w_enc) + b_enc
        acts = np.where(pre >= np.sort(pre)[-8], np.maximum(pre, 0), 0)
        expected.append(b_dec + sum(acts[feature] * w_dec[feature] for feature in range(64)))
    np.testing.assert_allclose(sae(rows.double()).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_saelens_reads_our_folder_with_equal_results(
    sae: TopKSAE, rows: torch.Tensor, tmp_path: Path
) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    sae.save(tmp_path)
    peer = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu")
    assert peer.cfg.metadata.hook_name == "tf1.cross_attn"
    with torch.no_grad():
        torch.testing.assert_close(peer.encode(rows), sae.encode(rows), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(peer(rows), sae(rows), rtol=1e-5, atol=1e-5)


def test_we_read_the_folder_of_saelens_with_equal_results(rows: torch.Tensor, tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    peer = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=16, d_sae=64, k=8))
    with torch.no_grad():
        peer.b_dec.copy_(torch.randn(16, generator=torch.Generator().manual_seed(2)))
    peer.save_model(str(tmp_path))
    ours = TopKSAE.load(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(rows), peer.encode(rows), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(rows), peer(rows), rtol=1e-5, atol=1e-5)
