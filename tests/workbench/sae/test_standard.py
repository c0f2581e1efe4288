"""The standard and the gated autoencoder by hand, and their gradients numerically."""

import math

import pytest
import torch

from workbench.sae.base import SAE, Objective, TrainingBatch
from workbench.sae.gated import GatedObjective
from workbench.sae.standard import StandardObjective
from workbench.sae.topk import TopKObjective

ALIVE = torch.zeros(2).bool()
X = torch.tensor([[2.0, -1.0], [1.0, 3.0]])


def with_decoder(objective: Objective) -> SAE:
    sae = objective.new_sae(2, 2, {})
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    return sae


def test_standard_by_hand() -> None:
    objective = StandardObjective(l1_coefficient=0.5)
    sae = with_decoder(objective)
    done = objective.step(sae, TrainingBatch(X, X, ALIVE, 0.05))
    # Activations (2, 0) and (1, 3); decoder rows of norms 2 and 1; half warmed up; two channels, two rows.
    assert done.x_hat.tolist() == [[4.0, 0.0], [2.0, 3.0]]
    terms = {name: term.item() for name, term in done.terms.items()}
    assert terms == pytest.approx({"error": (4 + 1 + 1) / 4, "l1": 0.5 * 0.5 * (2 * 2 + 2 * 1 + 3) / 4})
    assert done.fired.tolist() == [2, 1]


def test_gated_by_hand() -> None:
    objective = GatedObjective(l1_coefficient=0.5, warm_up=0)
    sae = with_decoder(objective)
    with torch.no_grad():
        sae.b_enc.copy_(torch.tensor([-1.0, 1.0]))
        sae.r_mag.fill_(math.log(3.0))  # type: ignore[operator]
        sae.b_mag.copy_(torch.tensor([0.5, -5.0]))  # type: ignore[operator]
    done = objective.step(sae, TrainingBatch(X, X, ALIVE, 0.0))
    # Gates: (1, 0) and (0, 4), open if positive. Magnitudes: (6.5, -8) and (3.5, 4).
    torch.testing.assert_close(done.x_hat, torch.tensor([[13.0, 0.0], [0.0, 4.0]]))
    terms = {name: term.item() for name, term in done.terms.items()}
    expected = {
        "error": (11**2 + 1 + 1 + 1) / 4,
        "l1": 0.5 * (1 * 2 + 4 * 1) / 4,
        "gate_error": (0 + 1 + 1 + 1) / 4,
    }
    assert terms == pytest.approx(expected)
    assert done.fired.tolist() == [1, 1]


@pytest.mark.parametrize(
    "objective",
    [StandardObjective(warm_up=0), GatedObjective(warm_up=0), TopKObjective(k=2, aux_coefficient=0.25)],
    ids=lambda objective: objective.architecture,
)
def test_gradients_are_those_of_differences(objective: Objective) -> None:
    """Away from kinks and ties, which the random weights and rows are."""
    generator = torch.Generator().manual_seed(3)
    sae = objective.new_sae(3, 5, {}).double()
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    names = [name for name, _ in sae.named_parameters()]
    drawn = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in sae.parameters()]
    # The auxiliary loss treats the residual as given, so no feature is dead here.
    batch = TrainingBatch(x, x, torch.zeros(5).bool(), 1.0)

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sae = sae

        def forward(self) -> torch.Tensor:
            return torch.stack(list(objective.step(self.sae, batch).terms.values())).sum()

    loss = Loss()

    def of(*values: torch.Tensor) -> torch.Tensor:
        replaced = {f"sae.{name}": value for name, value in zip(names, values, strict=True)}
        result: torch.Tensor = torch.func.functional_call(loss, replaced, ())
        return result

    assert torch.autograd.gradcheck(of, [value.requires_grad_() for value in drawn])
