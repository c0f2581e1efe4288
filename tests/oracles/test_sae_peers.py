"""The TopK autoencoder against an independent dense formula, and against what SAELens gave."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.sae.folder import load_folder, save_folder
from workbench.sae.topk import TopKConfig, TopKSAE

SAELENS = Path(__file__).parent / "fixtures" / "saelens"


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


@pytest.mark.parametrize("folder", ["ours", "theirs"])
def test_a_folder_means_to_us_what_it_means_to_saelens(folder: str) -> None:
    """Both folders were read by SAELens, which gave these outputs (see README.md)."""
    sae, outputs = load_folder(SAELENS / folder), np.load(SAELENS / "outputs.npz")
    rows = torch.from_numpy(outputs["rows"])
    with torch.no_grad():
        np.testing.assert_allclose(sae.encode(rows), outputs[f"{folder}_encoded"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sae(rows), outputs[f"{folder}_decoded"], rtol=1e-5, atol=1e-5)


def test_what_we_save_is_what_saelens_read(tmp_path: Path) -> None:
    save_folder(load_folder(SAELENS / "ours"), tmp_path)
    saved, read = (json.loads((folder / "cfg.json").read_text()) for folder in (tmp_path, SAELENS / "ours"))
    assert saved == read
    weights = "sae_weights.safetensors"
    assert (tmp_path / weights).read_bytes() == (SAELENS / "ours" / weights).read_bytes()
