"""JumpReLU by hand, and its straight-through gradients against the paper's formulas in NumPy."""

import math

import numpy as np
import pytest
import torch

from tests.tolerances import assert_close
from workbench.sae.base import TrainingBatch
from workbench.sae.jumprelu import (
    JumpReLUConfig,
    JumpReLUObjective,
    JumpReLUSAE,
    jump_relu,
    pre_activation_loss,
    step_above,
)
from workbench.sae.warm_up import warmed_up

BANDWIDTH = 0.6
RNG = np.random.default_rng(0)
PRE = RNG.normal(size=(200, 5))
THRESHOLD = RNG.uniform(0.1, 1.0, 5)
GRADIENT = RNG.normal(size=(200, 5))
# K of the paper: a rectangle of height 1 and width 1 about 0.
KERNEL = np.where(np.abs((PRE - THRESHOLD) / BANDWIDTH) < 0.5, 1.0, 0.0)


def gradients(function: object) -> tuple[np.ndarray, torch.Tensor | None, torch.Tensor]:
    pre = torch.from_numpy(PRE).requires_grad_()
    threshold = torch.from_numpy(THRESHOLD).requires_grad_()
    value = function(pre, threshold, BANDWIDTH)  # type: ignore[operator]
    value.backward(torch.from_numpy(GRADIENT))
    assert threshold.grad is not None
    return value.detach().numpy(), pre.grad, threshold.grad


def test_jump_relu_has_the_pseudo_derivative_of_the_paper() -> None:
    """Equation 11: d/dθ JumpReLU = -(θ / ε) K((z - θ) / ε); d/dz = H(z - θ)."""
    assert 0 < KERNEL.mean() < 1
    value, of_pre, of_threshold = gradients(jump_relu)
    assert_close(value, PRE * (PRE > THRESHOLD))
    assert of_pre is not None
    assert_close(of_pre, GRADIENT * (PRE > THRESHOLD))
    assert_close(of_threshold, (-(THRESHOLD / BANDWIDTH) * KERNEL * GRADIENT).sum(0))


def test_the_step_has_the_pseudo_derivative_of_the_paper() -> None:
    """Equation 12: d/dθ H(z - θ) = -(1 / ε) K((z - θ) / ε); the pre-activations get none."""
    value, of_pre, of_threshold = gradients(step_above)
    assert_close(value, (PRE > THRESHOLD).astype(float))
    assert of_pre is None
    assert_close(of_threshold, (-(1 / BANDWIDTH) * KERNEL * GRADIENT).sum(0))


def two_features(objective: JumpReLUObjective) -> torch.nn.Module:
    sae = objective.new_sae(2, 2, {})
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
    return sae


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"l0_coefficient": 0.5}, 0.5 * (2 + 1) / 2 / 2),
        (
            {"l0_coefficient": 0.5, "sparsity": "tanh", "tanh_scale": 2.0},
            0.5 * (sum(map(math.tanh, (4, 6, 8)))) / 4,
        ),
    ],
)
def test_terms_by_hand(options: dict, expected: float) -> None:
    objective = JumpReLUObjective(threshold=1.5, warm_up=0, pre_activation_coefficient=0.1, **options)
    sae = two_features(objective)
    x = torch.tensor([[2.0, 3.0], [1.0, 4.0]])
    done = objective.step(sae, TrainingBatch(x, x, torch.tensor([True, False]), 0.5))  # type: ignore[arg-type]
    # The first feature is below its threshold on the second row: by half of one.
    terms = {"error": 1 / 4, "sparsity": expected, "pre_activation": 0.1 * 0.5 / 2 / 2}
    assert {name: term.item() for name, term in done.terms.items()} == pytest.approx(terms)
    assert done.x_hat.tolist() == [[2.0, 3.0], [0.0, 4.0]]
    assert done.fired.tolist() == [1, 2]


def test_the_sparsity_term_is_warmed_up() -> None:
    assert [warmed_up(2.0, 0.1, progress) for progress in (0.0, 0.05, 0.1, 1.0)] == [0.0, 1.0, 2.0, 2.0]
    assert warmed_up(2.0, 0.0, 0.0) == 2.0


def test_dead_features_are_lifted_to_their_thresholds() -> None:
    pre = torch.tensor([[0.5, -1.0, 3.0], [0.0, 0.0, 0.0]])
    threshold, dead = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([True, False, True])
    assert pre_activation_loss(pre, threshold, dead).item() == pytest.approx((0.5 + 0 + 1 + 2) / 2)


def test_what_is_kept_encodes_as_the_trained_one() -> None:
    objective = JumpReLUObjective(threshold=1.5)
    sae = two_features(objective)
    kept = objective.trained(sae)  # type: ignore[arg-type]
    assert isinstance(kept, JumpReLUSAE)
    assert_close(kept.threshold, torch.full((2,), 1.5))
    x = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    assert torch.equal(kept.encode(x), torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    assert torch.equal(kept.encode(x), sae.encode(x))  # type: ignore[operator]


def test_negative_pre_activations_are_never_active() -> None:
    """Also below a negative threshold, as SAELens has it."""
    sae = JumpReLUSAE(JumpReLUConfig(d_in=1, d_sae=2))
    with torch.no_grad():
        sae.W_enc.fill_(1.0)
        sae.threshold.copy_(torch.tensor([-3.0, 1.0]))
    assert sae.encode(torch.tensor([[-2.0], [0.5], [1.0], [2.0]])).tolist() == [
        [0, 0],
        [0.5, 0],
        [1, 0],
        [2, 2],
    ]
