"""Guidance of ACE-Step v1 against what the original gives, over several steps with momentum."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.models.ace_step_v1.guidance import Momentum, apg, cfg, cfg_star, double_guidance

FIXTURE = Path(__file__).parent / "fixtures" / "ace_step_v1" / "guidance.npz"
TOLERANCES = {"64": 1e-10, "32": 1e-5}
DTYPES = {"64": torch.float64, "32": torch.float32}
KINDS = ("apg", "cfg", "cfg_star", "double")


@pytest.fixture(scope="module")
def original() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


def passes(
    case: dict[str, Any], step_seeds: np.random.Generator, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    """Velocities of a step: cond, text and null."""
    cond, text, null = (
        torch.from_numpy(step_seeds.standard_normal(case["shape"])).to(dtype) for _ in range(3)
    )
    return cond, cond + case["spread"] * text, cond + case["spread"] * null


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("precision", TOLERANCES)
def test_steps_are_guided_as_in_the_original(
    original: dict[str, np.ndarray], number: int, precision: str
) -> None:
    case = json.loads(str(original["cases"]))[number]
    draws, momentum, scale = np.random.default_rng(case["seed"]), Momentum(case["momentum"]), case["scale"]
    for step in range(4):
        cond, text, null = passes(case, draws, DTYPES[precision])
        found = {
            "apg": apg(cond, null, scale, momentum, case["eta"], case["norm_threshold"]),
            "cfg": cfg(cond, null, scale),
            "cfg_star": cfg_star(cond, null, scale, step),
            "double": double_guidance(cond, text, null, scale, scale / 2),
        }
        for kind in KINDS:
            expected = original[f"{number}/{kind}/{precision}"][step]
            assert found[kind].dtype == DTYPES[precision]
            error = np.abs(found[kind].numpy() - expected).max()
            assert error <= TOLERANCES[precision] * max(1, np.abs(expected).max()), (kind, step)


def test_every_case_is_compared(original: dict[str, np.ndarray]) -> None:
    assert len(json.loads(str(original["cases"]))) == 7
