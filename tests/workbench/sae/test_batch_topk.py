"""BatchTopK and Matryoshka by hand: the threshold, the prefixes."""

import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.sae.random_sae import random_kind
from workbench.sae.base import ALONE, TrainingBatch
from workbench.sae.batch_topk import BatchTopKObjective, update_threshold
from workbench.sae.jumprelu import JumpReLUConfig, JumpReLUSAE
from workbench.sae.matryoshka import MatryoshkaObjective

ALIVE = torch.zeros(4).bool()


def test_the_threshold_is_a_running_mean_of_the_smallest_activation() -> None:
    sae = JumpReLUSAE(JumpReLUConfig(d_in=2, d_sae=4))
    update_threshold(sae, torch.tensor([3.0, 2.0]), ALONE)
    assert sae.threshold.tolist() == [2.0] * 4
    update_threshold(sae, torch.tensor([4.0, 0.0]), ALONE)
    assert_close(sae.threshold, torch.full((4,), 2.0 + 0.1 * 2.0))
    update_threshold(sae, torch.zeros(2), ALONE)
    assert_close(sae.threshold, torch.full((4,), 2.2))


def test_a_step_sets_the_threshold_that_single_rows_are_encoded_with() -> None:
    sae = random_kind("batchtopk")
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        sae.threshold.zero_()  # type: ignore[operator]
        done = BatchTopKObjective(k=4).step(sae, TrainingBatch(rows, rows, torch.zeros(20).bool(), 0.0))
        assert done.fired.sum() == 4 * 40
        # The threshold is the smallest activation of this batch, which is the only one that is not above it.
        assert (sae.encode(rows) > 0).sum() == 4 * 40 - 1
    assert not sae.threshold.requires_grad


def test_features_of_a_free_decoder_are_compared_by_what_they_add() -> None:
    """The step is that of features times norms and of decoder rows of unit norm; so is the autoencoder that is kept."""
    sae, objective = random_kind("batchtopk"), BatchTopKObjective(k=4, decoder_norm="free", aux_coefficient=0)
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        sae.threshold.zero_()  # type: ignore[operator]
        sae.W_dec.mul_(torch.linspace(0.1, 3, 20)[:, None])
    done = objective.step(sae, TrainingBatch(rows, rows, torch.zeros(20).bool(), 0.0))
    found = torch.autograd.grad(done.terms["error"], (sae.W_enc, sae.W_dec))

    norms = sae.W_dec.norm(dim=1)
    acts = torch.relu((rows - sae.b_dec) @ sae.W_enc + sae.b_enc) * norms
    least = acts.detach().flatten().topk(4 * 40).values.min()
    x_hat = torch.where(acts >= least, acts, 0) @ (sae.W_dec / norms[:, None]) + sae.b_dec
    error = (x_hat - rows).square().mean()
    assert_close(done.terms["error"].detach(), error.detach())
    for here, there in zip(found, torch.autograd.grad(error, (sae.W_enc, sae.W_dec)), strict=True):
        assert_close(here, there)

    kept = objective.trained(sae)
    assert_close(kept.W_dec.detach().norm(dim=1), torch.ones(20))
    assert_close(kept.get_parameter("threshold").detach(), least.expand(20))
    is_least = torch.isclose(acts, least)  # rounding decides about the last one
    assert is_least.sum() == 1
    with torch.no_grad():
        expected = torch.where((acts > least) & ~is_least, acts, 0)
        assert_close(torch.where(is_least, 0, kept.encode(rows)), expected)


def test_rows_of_a_free_decoder_keep_their_norms_while_it_is_trained() -> None:
    for norm in ("unit", "free"):
        sae, objective = random_kind("batchtopk"), BatchTopKObjective(k=4, decoder_norm=norm)
        before = sae.W_dec.detach().clone().mul_(2)
        sae.W_dec.data.copy_(before)
        objective.constrain(sae)
        assert_close(
            sae.W_dec.detach(), before if norm == "free" else before / before.norm(dim=1, keepdim=True)
        )
        assert objective.initial_norm == (0.1 if norm == "free" else 1.0)


def test_k_beyond_the_features_is_refused() -> None:
    with pytest.raises(UserError, match="k is 9, but the autoencoder has only 8 features"):
        BatchTopKObjective(k=9).new_sae(2, 8, {})


def test_prefixes_by_hand() -> None:
    objective = MatryoshkaObjective(k=2, widths=(1, 3), aux_coefficient=0)
    sae = objective.new_sae(2, 4, {})
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.5]]))
    x = torch.tensor([[3.0, 2.0], [0.0, 1.0]])
    done = objective.step(sae, TrainingBatch(x, x, ALIVE, 0.0))
    # Kept: 3, 2, 3, 2 of the first row, none of the second.
    # Prefix 1: (3, 0) and 0, so errors 4 and 1. Prefix 3: (3, 2), error 0 and 1. All: (3, 3), 1 and 1.
    terms = {name: term.item() for name, term in done.terms.items()}
    assert terms == pytest.approx({"error_1": 5 / 4, "error_3": 1 / 4, "error": 2 / 4})


def test_default_widths_double_their_groups() -> None:
    assert MatryoshkaObjective().prefixes(64) == [2, 6, 14, 30]
    assert MatryoshkaObjective().prefixes(8) == [1, 3]


@pytest.mark.parametrize("widths", [(0, 2), (3, 2), (2, 2), (2, 8), (-1,)])
def test_widths_that_do_not_increase_below_the_whole_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"must increase, from at least 1 to less than the 8 features"):
        MatryoshkaObjective(widths=widths, k=2).new_sae(2, 8, {})
