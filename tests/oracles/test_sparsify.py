"""TopK autoencoders and transcoders against sparsify: outputs, FVU, AuxK, gradients of the decoder, folders.

Both sides have the weights and rows of `sae_cases`; README.md says how sparsify's numbers were made.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles import sae_cases as cases
from tests.oracles.our_saes import OBJECTIVES, TRANSCODERS, our_sae, write_folders
from tests.oracles.test_sae_kinds import assert_equal_tensors
from tests.tolerances import assert_close
from workbench.artefacts.sae_folder import read_sae
from workbench.sae.base import TrainingBatch
from workbench.sae.topk import auxiliary_loss

SPARSIFY = Path(__file__).parent / "fixtures" / "sparsify"
KINDS = ("topk", "topk_transcoder")
Theirs = dict[str, np.ndarray]

each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("precision", cases.DTYPES)


def case(kind: str, precision: str) -> tuple[TrainingBatch, Theirs, float]:
    """The batch, sparsify's outputs for it, and the variance that its losses are divided by."""
    stored, dtype = np.load(SPARSIFY / "outputs.npz"), cases.DTYPES[precision]
    prefix = f"{kind}/{precision}/"
    found = {name.removeprefix(prefix): stored[name] for name in stored if name.startswith(prefix)}
    rows = cases.rows().to(dtype)
    target = cases.targets().to(dtype) if kind == "topk_transcoder" else rows
    variance = float((target - target.mean(0)).square().sum())
    return TrainingBatch(rows, target, cases.dead(), 1.0), found, variance


@each_dtype
@each_kind
def test_outputs_and_fraction_of_variance_unexplained(kind: str, precision: str) -> None:
    """FVU is a sum divided by the variance; our error is a mean."""
    batch, found, variance = case(kind, precision)
    sae = our_sae(kind, batch.x.dtype)
    done = {**OBJECTIVES, **TRANSCODERS}[kind].step(sae, batch)
    assert_close(sae.encode(batch.x).detach(), found["acts"])
    assert_close(done.x_hat.detach(), found["x_hat"])
    assert_close(done.terms["error"].detach() * batch.target.numel() / variance, found["fvu"])
    done.terms["error"].backward()
    assert sae.W_dec.grad is not None
    assert_close(sae.W_dec.grad * batch.target.numel() / variance, found["gradient/fvu/W_dec"])


@each_dtype
@each_kind
def test_auxiliary_loss(kind: str, precision: str) -> None:
    """AuxK is divided by the variance, ours by the square of what is left over.

    sparsify takes pre-activations after ReLU and gives the encoder no gradient; ours are of either sign and have one.
    So theirs are given to our loss.
    """
    batch, found, variance = case(kind, precision)
    sae = our_sae(kind, batch.x.dtype)
    left_over = batch.target - torch.from_numpy(found["x_hat"])
    pre = torch.relu(sae.pre_activations(batch.x)).detach()

    class Positive(type(sae)):  # type: ignore[misc]
        def pre_activations_of(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
            return pre[:, features]

    sae.__class__ = Positive
    ours = auxiliary_loss(sae, batch, left_over)
    scale = min(1.0, float(batch.dead.sum()) / (cases.CHANNELS // 2))
    convert = scale * float(left_over.square().sum()) / variance
    assert_close(ours.detach() * convert, found["auxk"])
    ours.backward()
    assert sae.W_dec.grad is not None
    assert_close(sae.W_dec.grad * convert, found["gradient/auxk/W_dec"])


@each_kind
def test_a_folder_of_sparsify_is_read(kind: str) -> None:
    _, found, _ = case(kind, "float32")
    sae = read_sae(str(SPARSIFY / "theirs" / kind), "tf1.cross_attn").sae
    with torch.no_grad():
        assert_close(sae(cases.rows().float()), found["x_hat"])


@each_kind
def test_sparsify_reads_what_we_write(kind: str, tmp_path: Path) -> None:
    write_folders(tmp_path)
    read = np.load(SPARSIFY / "outputs.npz")[f"ours/{kind}"]
    with torch.no_grad():
        assert_close(our_sae(kind)(cases.rows().float()), read)
    saved, stored = tmp_path / "sparsify" / "ours" / kind, SPARSIFY / "ours" / kind
    assert (saved / "cfg.json").read_text() == (stored / "cfg.json").read_text()
    assert_equal_tensors(saved / "sae.safetensors", stored / "sae.safetensors")
