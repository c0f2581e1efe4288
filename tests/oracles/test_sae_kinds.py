"""Every kind of autoencoder against SAELens: outputs, terms of the loss, a step, and each other's folders.

Both sides have the weights and rows of `sae_cases`; README.md says how SAELens' numbers were made. Its squared error is
a sum over channels, ours a mean, so its terms are ours times the number of channels, and its learning rate ours divided
by it. The other conversions are where they are needed.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles import sae_cases as cases
from tests.oracles.our_saes import OBJECTIVES, our_sae, write_folders
from tests.tolerances import assert_close
from workbench.sae.base import SAE, Objective, TrainingBatch, TrainingStep
from workbench.sae.folder import load_folder
from workbench.sae.jumprelu import JumpReLUSAE, LogThresholdSAE
from workbench.sae.topk import TopKSAE

SAELENS = Path(__file__).parent / "fixtures" / "saelens"
THEIR_TERMS = {
    "error": "mse_loss",
    **{f"error_{width}": f"inner_mse_loss_{width}" for width in cases.WIDTHS},
    "auxiliary": "auxiliary_reconstruction_loss",
    "sparsity": "l0_loss",
    "pre_activation": "pre_act_loss",
    "l1": "l1_loss",
    "gate_error": "auxiliary_reconstruction_loss",
}
OF_A_BATCH = ("batchtopk", "matryoshka_batchtopk")
Theirs = dict[str, np.ndarray]

each_kind = pytest.mark.parametrize("kind", OBJECTIVES)
each_dtype = pytest.mark.parametrize("precision", cases.DTYPES)


def theirs(kind: str, precision: str) -> Theirs:
    stored = np.load(SAELENS / f"{kind}.npz")
    return {name.partition("/")[2]: stored[name] for name in stored if name.startswith(precision)}


def equivalent(objective: Objective, found: Theirs, rows: torch.Tensor) -> Objective:
    """The objective whose auxiliary loss weighs as much as SAELens'.

    Ours is relative to the square of what is left over; SAELens' is not, and is scaled down if fewer features are dead
    than half the channels.
    """
    if not hasattr(objective, "aux_coefficient"):
        return objective
    left_over = float(((rows.numpy() - found["x_hat"]) ** 2).mean())
    scale = min(1.0, float(cases.dead().sum()) / (cases.CHANNELS // 2))
    return objective.model_copy(update={"aux_coefficient": cases.AUX_COEFFICIENT * scale * left_over})


def stepped(kind: str, precision: str) -> tuple[SAE, TrainingStep, Theirs]:
    """Take one training step's forward and backward pass."""
    found, dtype = theirs(kind, precision), cases.DTYPES[precision]
    rows, sae = cases.rows().to(dtype), our_sae(kind, dtype)
    objective = equivalent(OBJECTIVES[kind], found, rows)
    done = objective.step(sae, TrainingBatch(rows, rows, cases.dead(), 1.0))
    torch.stack(list(done.terms.values())).sum().backward()
    return sae, done, found


@each_dtype
@each_kind
def test_outputs_and_terms(kind: str, precision: str) -> None:
    _, done, found = stepped(kind, precision)
    assert_close(done.x_hat.detach(), found["x_hat"])
    assert done.fired.tolist() == (found["acts"] > 0).sum(0).tolist()
    if kind not in OF_A_BATCH:
        rows = cases.rows().to(cases.DTYPES[precision])
        assert_close(our_sae(kind, rows.dtype).encode(rows).detach(), found["acts"])
    assert {THEIR_TERMS[name] for name in done.terms} == {
        name.partition("/")[2] for name in found if name.startswith("term/")
    }
    for name, term in done.terms.items():
        assert term > 0
        assert_close(term.detach() * cases.CHANNELS, found[f"term/{THEIR_TERMS[name]}"], name)


@each_dtype
@each_kind
def test_a_step_of_gradient_descent(kind: str, precision: str) -> None:
    sae, _, found = stepped(kind, precision)
    torch.optim.SGD(sae.parameters(), lr=cases.LEARNING_RATE * cases.CHANNELS).step()
    # Those of JumpReLU's that the next test compares by their gradients.
    others = ("log_threshold", "W_dec") if isinstance(sae, LogThresholdSAE) else ("threshold",)
    compared = [name for name, _ in sae.named_parameters() if name not in others]
    assert len(compared) >= 3
    for name in compared:
        stored = "b_gate" if kind == "gated" and name == "b_enc" else name
        assert_close(sae.get_parameter(name).detach(), found[f"after/{stored}"], name)


@pytest.mark.parametrize("kind", ["jumprelu_l0", "jumprelu_tanh"])
def test_gradients_of_jumprelu(kind: str) -> None:
    """Ours is of the threshold's logarithm; SAELens' sparsity terms weigh features by the norms of their rows.

    Those are 1 and stay so here, and the gradient of a norm is along its row.
    """
    sae, _, found = stepped(kind, "float64")
    assert isinstance(sae, LogThresholdSAE)
    assert sae.log_threshold.grad is not None
    assert sae.W_dec.grad is not None
    terms = ("mse_loss", "l0_loss", "pre_act_loss")
    zero = np.zeros(1)
    of_threshold = sum(found.get(f"gradient/{term}/threshold", zero) for term in terms)
    assert_close(sae.log_threshold.grad * cases.CHANNELS, cases.threshold().numpy() * of_threshold)
    assert_close(sae.W_dec.grad * cases.CHANNELS, found["gradient/mse_loss/W_dec"])
    rows = sae.W_dec.detach().numpy()
    for term in terms[1:]:
        extra = found.get(f"gradient/{term}/W_dec", np.zeros_like(rows))
        assert_close(extra - (extra * rows).sum(1, keepdims=True) * rows, np.zeros_like(rows), term)


@each_dtype
@pytest.mark.parametrize("kind", OF_A_BATCH)
def test_the_running_threshold(kind: str, precision: str) -> None:
    """A batch weighs 0.1 in our mean, and 0.01 in SAELens'."""
    sae, _, found = stepped(kind, precision)
    assert isinstance(sae, JumpReLUSAE)
    moved = (sae.threshold - cases.RUNNING_THRESHOLD) / 10
    assert_close(moved + cases.RUNNING_THRESHOLD, np.full(cases.FEATURES, found["running_threshold"]))


FOLDERS = sorted(f"{at.parent.name}/{at.name}" for at in SAELENS.glob("*/*") if at.is_dir())


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_means_to_us_what_it_means_to_saelens(folder: str) -> None:
    """SAELens read those that we wrote, and we read those that it wrote."""
    sae, outputs = load_folder(SAELENS / folder), np.load(SAELENS / "folders.npz")
    rows = cases.rows().float()
    with torch.no_grad():
        assert_close(sae.encode(rows), outputs[f"{folder}/acts"])
        assert_close(sae(rows), outputs[f"{folder}/x_hat"])
    assert (outputs[f"{folder}/acts"] > 0).any()


def test_what_we_save_is_what_saelens_read(tmp_path: Path) -> None:
    write_folders(tmp_path)
    names = {at.name for at in (tmp_path / "saelens" / "ours").iterdir()}
    assert names == {name.partition("/")[2] for name in FOLDERS if name.startswith("ours/")}
    for name in names:
        saved, read = tmp_path / "saelens" / "ours" / name, SAELENS / "ours" / name
        assert json.loads((saved / "cfg.json").read_text()) == json.loads((read / "cfg.json").read_text())
        weights = "sae_weights.safetensors"
        assert_equal_tensors(saved / weights, read / weights)


def assert_equal_tensors(one: Path, other: Path) -> None:
    from safetensors.numpy import load_file

    ours, theirs = load_file(one), load_file(other)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert_close(value, theirs[name], name)  # exp and norms may round otherwise elsewhere


def test_forward_is_the_dense_formula() -> None:
    sae = our_sae("topk", torch.float64)
    assert isinstance(sae, TopKSAE)
    w_enc, b_enc, w_dec, b_dec = (
        cases.weights(unit=True)[name].numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    expected = []
    for x in cases.rows().numpy():
        pre = np.einsum("c,cf->f", x - b_dec, w_enc) + b_enc
        acts = np.where(pre >= np.sort(pre)[-cases.K], np.maximum(pre, 0), 0)
        expected.append(b_dec + sum(acts[feature] * w_dec[feature] for feature in range(cases.FEATURES)))
    assert_close(sae(cases.rows()).detach(), np.array(expected))
