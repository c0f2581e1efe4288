"""Metrics of an autoencoder over all steps and at each, and the steps that its gate closes."""

import numpy as np
import pytest
import torch

from analyses.sae.metrics import Reconstruction
from analyses.sae.quality import MEASURES, gate, quality
from tests.tolerances import FLOAT32
from tests.workbench.sae.random_sae import random_sae
from workbench.sae.topk import TopKSAE

CHANNELS = 4


SIGMAS = {0: 1.0, 5: 0.25}


def perfect() -> TopKSAE:
    """It reconstructs everything: a feature for either sign of each channel."""
    sae = random_sae(CHANNELS, 2 * CHANNELS, CHANNELS)
    both = torch.cat([torch.eye(CHANNELS), -torch.eye(CHANNELS)])
    with torch.no_grad():
        for parameter, value in ((sae.W_dec, both), (sae.W_enc, both.T), (sae.b_enc, 0.0), (sae.b_dec, 0.0)):
            parameter.copy_(torch.as_tensor(value))
    return sae


def acts(clips: int = 3) -> list[np.ndarray]:
    """Activations that vary ten times less at the second step."""
    draws = np.random.default_rng(0).normal(size=(clips, 2, 50, CHANNELS)).astype(np.float32)
    draws[:, 1] = draws[:, 1] / 10 + 3
    return list(draws)


FACTORS = [np.array([[2.0]]), np.array([[2.0], [7.0]]), np.linspace(1, 3, CHANNELS)[None]]
"""Of all inputs, of each step, and of each channel."""


@pytest.mark.parametrize("factor", FACTORS, ids=["global", "step", "channel"])
def test_the_metrics_are_those_of_all_rows_and_of_each_step(factor: np.ndarray) -> None:
    sae, rows = random_sae(CHANNELS, 6, 2), acts()
    measured = quality(sae, rows, SIGMAS, factor)
    for place, step in enumerate((0, 5)):
        of_step = np.stack(rows)[:, place]
        assert_measured(sae, of_step, {n: measured[f"step_{n}"].sel(step=step).item() for n in MEASURES})
    assert_measured(sae, np.stack(rows), {n: measured[f"final_{n}"].item() for n in MEASURES})
    x = torch.from_numpy(np.stack(rows))
    with torch.no_grad():
        loss = ((sae(x) - x) * torch.from_numpy(factor)[:, None]).square().mean().item()
    assert measured["final_loss"].item() == pytest.approx(loss, rel=FLOAT32)
    assert measured["sigma"].values.tolist() == [1.0, 0.25]


def assert_measured(sae: TopKSAE, rows: np.ndarray, found: dict[str, float]) -> None:
    x = torch.from_numpy(rows).reshape(-1, CHANNELS)
    metrics = Reconstruction(CHANNELS, sae.config.d_sae)
    with torch.no_grad():
        metrics.add(x, sae(x), sae.encode(x))
    assert found == pytest.approx({name: measure(metrics) for name, measure in MEASURES.items()}, rel=FLOAT32)


def test_each_step_has_its_own_autoencoder() -> None:
    """One that is right at the first step only, as `at` says."""
    wrong = random_sae(CHANNELS, 2 * CHANNELS, 2)

    class ByStep(TopKSAE):
        def at(self, step: int) -> TopKSAE:
            return self if step == 0 else wrong

    sae = ByStep(perfect().config, dict(perfect().state_dict()))
    measured = quality(sae, acts(), SIGMAS, input_scale=np.ones((1, 1)))
    assert measured["step_explained_variance"].sel(step=0).item() == pytest.approx(1, rel=FLOAT32)
    assert measured["step_explained_variance"].sel(step=5).item() < 0


def test_a_step_at_which_the_mean_predictor_is_as_good_is_closed() -> None:
    """One that always gives the mean of both steps explains half of what differs over both, but nothing at either."""
    sae, rows = perfect(), acts()
    assert not list(gate(quality(sae, rows, SIGMAS, np.ones((1, 1)))).closed)
    with torch.no_grad():
        sae.W_dec[:, :] = 0.0
        sae.b_dec[:] = 3.0
    measured = quality(sae, rows, SIGMAS, np.ones((1, 1)))
    assert measured["gated"].values.tolist() == [True, True]
    assert measured["step_explained_variance"].sel(step=5).item() == pytest.approx(0, abs=0.05)


def test_loss_recovered_closes_a_step_too() -> None:
    measured = quality(perfect(), acts(), SIGMAS, np.ones((1, 1)))
    closed = list(gate(measured, [float("nan"), 0.3]).closed)
    assert closed == [(5, 0.25, "its loss recovered there is 0.30, less than 0.5")]
