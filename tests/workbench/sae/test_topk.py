"""TopK by hand: encoding, decoding, scale and the auxiliary loss."""

import pytest
import torch

from cache.errors import UserError
from tests.workbench.sae.random_sae import random_sae
from workbench.sae.base import Sharing, TrainingBatch
from workbench.sae.topk import TopKConfig, TopKObjective, TopKSAE, auxiliary_loss, keep_largest


def test_by_hand() -> None:
    sae = TopKSAE(TopKConfig(d_in=2, d_sae=3, k=1))
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]))
        sae.b_enc.copy_(torch.tensor([0.0, 0.5, 0.0]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        sae.b_dec.copy_(torch.tensor([1.0, 1.0]))
        # x - b_dec = (2, 1): pre-activations 2, 2.5, -2.
        assert sae.encode(torch.tensor([3.0, 2.0])).tolist() == [0.0, 2.5, 0.0]
        assert sae(torch.tensor([3.0, 2.0])).tolist() == [1.0, 3.5]
        # x - b_dec = (-1, -1): pre-activations -1, -1.5, 1.
        assert sae.encode(torch.tensor([0.0, 0.0])).tolist() == [0.0, 0.0, 1.0]


def test_k_features_are_kept_of_each_row() -> None:
    values = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 4.0, 0.0, 0.0]])
    assert keep_largest(values, 2).tolist() == [[5.0, 0.0, 3.0, 0.0], [0.0, 4.0, 0.0, 0.0]]
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    acts = random_sae().encode(rows)
    assert (acts >= 0).all()
    assert ((acts > 0).sum(-1) == 3).all()


def test_leading_axes_do_not_matter() -> None:
    sae = random_sae()
    rows = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sae(rows), sae(rows.reshape(20, 6)).reshape(4, 5, 6))


def test_k_beyond_the_features_is_refused() -> None:
    with pytest.raises(UserError, match="k is 9, but the autoencoder has only 8 features"):
        TopKObjective(k=9).new_sae(2, 8, {})


def test_unscale_by_hand() -> None:
    sae = random_sae()
    with torch.no_grad():
        x = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
        acts, x_hat = sae.encode(x), sae(x)
        sae.unscale(5.0)
        torch.testing.assert_close(sae.encode(x / 5), acts / 5)
        torch.testing.assert_close(sae(x / 5), x_hat / 5)


def sae_of_four_directions() -> TopKSAE:
    sae = TopKSAE(TopKConfig(d_in=2, d_sae=4, k=1))
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]]))
    return sae


def test_auxiliary_loss_by_hand() -> None:
    sae = sae_of_four_directions()
    with torch.no_grad():
        sae.b_enc.copy_(torch.tensor([9.0, 1.0, 3.0, 0.0]))
    residual = torch.tensor([[0.0, -4.0]])
    dead = torch.tensor([False, True, True, True])
    # Half of two channels is one feature: the third, which predicts (0, -3). Error 1 of 16.
    batch = TrainingBatch(torch.zeros(1, 2), residual, dead, 0.0)
    assert auxiliary_loss(sae, batch, residual).item() == pytest.approx(1 / 16)

    class OtherLeavesMore(Sharing):
        def mean(self, value: torch.Tensor) -> torch.Tensor:
            return (value + 3 * value) / 2

    shared = batch._replace(sharing=OtherLeavesMore())
    assert auxiliary_loss(sae, shared, residual).item() == pytest.approx(1 / 32), (
        "of the square of all processes"
    )


@pytest.mark.parametrize(
    ("aux_coefficient", "dead", "expected"),
    [
        (0.5, [False, True, True, True], {"error": 8.0, "auxiliary": 0.5 / 16}),
        (0.5, [False] * 4, {"error": 8.0}),
        (0.0, [True] * 4, {"error": 8.0}),
    ],
)
def test_the_terms_of_the_loss_by_hand(
    aux_coefficient: float, dead: list[bool], expected: dict[str, float]
) -> None:
    sae = sae_of_four_directions()
    with torch.no_grad():
        # Pre-activations of (9, -4): 9, 1, 3, 0. The largest reconstructs (9, 0).
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
        sae.b_enc.copy_(torch.tensor([0.0, 1.0, 3.0, 0.0]))
    x = torch.tensor([[9.0, -4.0]])
    done = TopKObjective(k=1, aux_coefficient=aux_coefficient).step(
        sae, TrainingBatch(x, x, torch.tensor(dead), 0.0)
    )
    assert {name: term.item() for name, term in done.terms.items()} == pytest.approx(expected)
    assert done.x_hat.tolist() == [[9.0, 0.0]]
    assert done.fired.tolist() == [1, 0, 0, 0]
