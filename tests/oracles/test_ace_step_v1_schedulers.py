"""Schedulers of ACE-Step v1 over whole runs against what the original gives, with a velocity of a few lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.models.ace_step_v1.schedulers import (
    AceStepV1EulerScheduler,
    AceStepV1HeunScheduler,
    AceStepV1PingPongScheduler,
)

FIXTURE = Path(__file__).parent / "fixtures" / "ace_step_v1" / "schedulers.npz"
KINDS: dict[str, Any] = {
    "euler": AceStepV1EulerScheduler,
    "heun": AceStepV1HeunScheduler,
    "ping_pong": AceStepV1PingPongScheduler,
}
TOLERANCES = {"64": 1e-10, "32": 1e-5}
DTYPES = {"64": torch.float64, "32": torch.float32}
N_CASES = 4


@pytest.fixture(scope="module")
def original() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


def run(scheduler: Any, case: dict[str, Any], reduction: str, dtype: torch.dtype) -> torch.Tensor:
    """The latents after each call, where the velocity mixes the channels and grows with sigma."""
    n_rows, n_channels = case["shape"][:2]
    draws = np.random.default_rng(case["seed"])
    latents = torch.from_numpy(draws.standard_normal(case["shape"])).to(dtype)
    mixing = torch.from_numpy(draws.standard_normal((n_channels, n_channels)) / np.sqrt(n_channels)).to(dtype)
    generators = [torch.Generator().manual_seed(100 + row) for row in range(n_rows)]
    path = []
    for timestep in scheduler.timesteps:
        velocity = torch.einsum("cd,rdbf->rcbf", mixing, latents) * (1 + timestep.to(dtype) / 1000) + 0.3
        latents = scheduler.step(velocity, timestep, latents, case["omega"], reduction, generators)
        assert latents.dtype == dtype
        path.append(latents)
    return torch.stack(path)


@pytest.mark.parametrize("number", range(N_CASES))
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(
    ("kind", "reduction"),
    [(kind, reduction) for kind in ("euler", "heun") for reduction in ("sample", "batch")]
    + [("ping_pong", "sample")],
)
def test_whole_runs_are_those_of_the_original(
    original: dict[str, np.ndarray], kind: str, reduction: str, number: int, precision: str
) -> None:
    """Where rows are on their own, the original's are runs of one row."""
    case = json.loads(str(original["cases"]))[number]
    scheduler = KINDS[kind](shift=case["shift"])
    scheduler.set_timesteps(case["steps"])
    assert np.array_equal(scheduler.timesteps.numpy(), original[f"{number}/{kind}/timesteps"])
    expected = original[f"{number}/{kind}/{reduction}/{precision}"]
    found = run(scheduler, case, reduction, DTYPES[precision]).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCES[precision] * max(1, np.abs(expected).max())


@pytest.mark.parametrize("number", range(N_CASES))
@pytest.mark.parametrize("kind", KINDS)
def test_sigmas_are_those_of_the_original(original: dict[str, np.ndarray], kind: str, number: int) -> None:
    """The original repeats Heun's inner sigmas, once for each call."""
    case = json.loads(str(original["cases"]))[number]
    scheduler = KINDS[kind](shift=case["shift"])
    scheduler.set_timesteps(case["steps"])
    expected = original[f"{number}/{kind}/sigmas"]
    if kind == "heun":
        expected = np.concatenate([expected[:-1:2], expected[-1:]])
    assert np.array_equal(scheduler.sigmas.numpy(), expected)


@pytest.mark.parametrize("steps", [27, 30, 60, 100])
def test_published_schedules_are_equal_to_the_bit(original: dict[str, np.ndarray], steps: int) -> None:
    scheduler = AceStepV1EulerScheduler()
    scheduler.set_timesteps(steps)
    assert np.array_equal(scheduler.timesteps.numpy(), original[f"timesteps_{steps}"])


def test_every_case_is_compared(original: dict[str, np.ndarray]) -> None:
    assert len(json.loads(str(original["cases"]))) == N_CASES
