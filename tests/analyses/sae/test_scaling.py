"""Inputs are centred and scaled, and the scale is folded into the weights exactly."""

from typing import Any

import numpy as np
import pytest
import torch

from analyses.sae.scaling import Scale, folded, measure
from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.sae.random_sae import random_sae
from workbench.sae.base import SAE

ROWS = torch.tensor([[1.0, 0.0], [3.0, 4.0], [10.0, 0.0], [10.0, 8.0]], dtype=torch.float16)
STEP = torch.tensor([0, 0, 1, 1])
BATCHES = [(ROWS[:1], STEP[:1]), (ROWS[1:], STEP[1:])]


@pytest.mark.parametrize(
    ("kind", "mean", "variance"),
    [
        ("global", [[6, 3]], [[(16.5 + 11) / 2]]),
        ("uncentred", [[0, 0]], [[(16.5 + 11) / 2]]),
        ("channel", [[6, 3]], [[16.5, 11]]),
        ("step", [[2, 2], [10, 4]], [[2.5], [8]]),
    ],
)
def test_mean_and_factor_by_hand(kind: Any, mean: list[list[float]], variance: list[list[float]]) -> None:
    scale = measure(BATCHES, kind, (3, 7))
    assert_close(scale.mean, torch.tensor(mean, dtype=torch.float32))
    assert_close(scale.factor, torch.tensor(variance) ** -0.5)
    assert scale.steps == ((3, 7) if kind == "step" else ())


def test_the_ratio_of_mean_and_spread_by_hand() -> None:
    assert_close(measure(BATCHES, "global", ()).ratio, np.array([(45 / 27.5) ** 0.5]))
    assert_close(measure(BATCHES, "step", (3, 7)).ratio, np.array([(8 / 5) ** 0.5, (116 / 16) ** 0.5]))


@pytest.mark.parametrize("kind", ["global", "channel", "step"])
def test_scaled_rows_have_mean_zero_and_variance_one(kind: Any) -> None:
    noise = torch.randn(600, 5, generator=torch.Generator().manual_seed(0))
    rows, step = noise * torch.arange(1, 6) + 7, torch.arange(600) % 3
    rows = rows * (1 + step[:, None])
    scaled = measure([(rows, step)], kind, (0, 1, 2)).apply(rows, step)
    assert scaled.mean().abs() < 1e-5
    parts = [scaled[step == place] for place in range(3)] if kind == "step" else [scaled]
    for part in parts:
        variances = part.var(0, correction=0)
        assert_close(
            variances if kind == "channel" else variances.mean(), torch.ones(5 if kind == "channel" else ())
        )


def test_a_channel_that_never_changes_is_only_centred() -> None:
    rows = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    scale = measure([(rows, STEP[:0])], "channel", ())
    assert scale.apply(rows, STEP[:0]).tolist() == [[-1, 0], [1, 0]]


def test_a_step_without_variance_is_refused() -> None:
    rows = torch.tensor([[1.0], [2.0], [3.0], [3.0]])
    with pytest.raises(UserError, match=r"not all equal .* at every step"):
        measure([(rows, STEP)], "step", (0, 1))


def scale_of(kind: str) -> Scale:
    columns, rows = (6 if kind == "channel" else 1), (2 if kind == "step" else 1)
    generator = torch.Generator().manual_seed(3)
    return Scale(
        torch.randn(rows, 6, generator=generator),
        torch.rand(rows, columns, generator=generator) + 0.5,
        (4, 9) if kind == "step" else (),
        np.zeros(rows),
    )


@pytest.mark.parametrize("kind", ["global", "channel", "step"])
def test_a_folded_sae_does_to_inputs_what_it_did_to_scaled_ones(kind: str) -> None:
    scale, sae = scale_of(kind), random_sae()
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(4))
    place = torch.arange(20) % len(scale.mean)
    with torch.no_grad():
        scaled = scale.apply(x, place)
        acts, x_hat = sae.encode(scaled), sae(scaled)
        whole = folded(sae, [scale])
        for row, at in enumerate(place):
            own: SAE = whole.at((4, 9)[at])
            factor = scale.factor[at]
            unit = 1.0 if kind == "channel" else factor
            assert_close(own.encode(x[row]), acts[row] / unit)
            assert_close(own(x[row]), x_hat[row] / factor + scale.mean[at])


def test_an_sae_of_steps_is_used_at_its_steps_only() -> None:
    sae = folded(random_sae(), [scale_of("step")])
    with pytest.raises(UserError, match=r"use `sae\.at\(step\)`"):
        sae.encode(torch.zeros(1, 6))
    with pytest.raises(UserError, match="trained on steps 4, 9; it cannot be used at step 5"):
        sae.at(5)
