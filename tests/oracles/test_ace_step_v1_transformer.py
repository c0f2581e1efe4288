"""ACE-Step v1's denoiser against the original's: names and shapes, lyric encoder, conditioning, denoiser calls.

The original ran elsewhere (see README.md). Weights are drawn alike on both sides by `recipe.fill`, inputs by
`ace_step_v1_cases`; the fixtures keep names and shapes, and what the original gave.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.oracles.ace_step_v1_cases import ERG_SEEDS, INSTRUMENTAL_SEED, LAYERS, case
from tests.oracles.recipe import fill
from workbench.models.ace_step_v1.transformer import AceStepV1Transformer

FIXTURES = Path(__file__).parent / "fixtures" / "ace_step_v1"
NAMES = json.loads((FIXTURES / "transformer.json").read_text())
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest difference, as a part of the largest value."""


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    """What the original gave, by `<dtype>.<seed>.<quantity>`."""
    with np.load(FIXTURES / "transformer.npz") as file:
        return dict(file)


def shapes(listed: dict[str, list[int]], blocks: int, lyric_blocks: int) -> dict[str, torch.Size]:
    """A state dict's shapes from the fixture's listing, which has `*` for the number of a block."""
    numbers = {"transformer_blocks.*": range(blocks), "lyric_encoder.encoders.*": range(lyric_blocks)}
    found = {}
    for name, shape in listed.items():
        repeated = next((prefix for prefix in numbers if name.startswith(prefix)), None)
        for number in numbers[repeated] if repeated else [0]:
            found[name.replace("*", str(number))] = torch.Size(shape)
    return found


def run(seed: int, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Every compared quantity of a case, computed by ours in `dtype`."""
    drawn = case(seed)
    model = AceStepV1Transformer(**drawn.config).to(dtype).eval()
    fill(model, seed)
    given: dict[str, Any] = {
        name: torch.from_numpy(value).to(dtype) if value.dtype == np.float64 else torch.from_numpy(value)
        for name, value in drawn.inputs().items()
    }
    conditioning = (
        given["text"], given["text_mask"], given["speaker"], given["lyric_tokens"], given["lyric_mask"]
    )  # fmt: skip
    found = {}
    with torch.no_grad():
        for prefix, weak in (("", False), ("weak_", True)):
            embedded = model.lyric_embs(given["lyric_tokens"])
            found[f"{prefix}lyrics"] = model.lyric_encoder(embedded, given["lyric_mask"].bool(), weak)
            states, mask = model.encode(*conditioning, weak_lyrics=weak)
            found[f"{prefix}encoded"], found["mask"] = states, mask
            if weak and seed not in ERG_SEEDS:
                continue
            found[f"{prefix}sample"] = model(
                given["latents"],
                given["timestep"],
                states,
                mask,
                attention_mask=given["frame_mask"].bool(),
                weak_queries=torch.ones(len(states), dtype=torch.bool) if weak else None,
            ).sample
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("seed", LAYERS)
def test_state_dict_has_the_originals_names_and_shapes(seed: int) -> None:
    config = case(seed).config
    model = AceStepV1Transformer(**config)
    original = shapes(NAMES["tiny"][str(seed)], config["num_layers"], config["lyric_num_blocks"])
    assert {name: value.shape for name, value in model.state_dict().items()} == original
    model.load_state_dict({name: torch.zeros(shape) for name, shape in original.items()}, strict=True)


def test_published_configuration_has_the_published_parameters() -> None:
    published = NAMES["published"]
    config = AceStepV1Transformer.extract_init_dict(published["config"])[0]
    with torch.device("meta"):
        model, default = AceStepV1Transformer(**config), AceStepV1Transformer()
    found = {name: value.shape for name, value in model.state_dict().items()}
    assert found == shapes(published["shapes"], blocks=24, lyric_blocks=6)
    assert found == {name: value.shape for name, value in default.state_dict().items()}
    assert len(found) == published["tensors"]
    assert sum(value.numel() for value in model.parameters()) == published["parameters"] == 3_305_659_264


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("seed", LAYERS)
def test_outputs_are_the_originals(seed: int, dtype: torch.dtype, theirs: dict[str, np.ndarray]) -> None:
    """The float32 fixtures keep the last row alone."""
    found, prefix = run(seed, dtype), f"{str(dtype).removeprefix('torch.')}.{seed}."
    expected = {name.removeprefix(prefix): value for name, value in theirs.items() if name.startswith(prefix)}
    assert expected.keys() == found.keys()
    np.testing.assert_array_equal(found.pop("mask")[-len(expected["mask"]) :], expected.pop("mask"))
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        difference = np.abs(found[name][-len(value) :] - value).max() / np.abs(value).max()
        assert difference < TOLERANCE[dtype], f"{name}: {difference}"


def test_the_cases_are_not_trivial(theirs: dict[str, np.ndarray]) -> None:
    """Weakening changes lyrics where there are any, and rows differ: the comparisons above could fail."""
    for seed in LAYERS:
        plain, weak = (theirs[f"float64.{seed}.{name}"] for name in ("lyrics", "weak_lyrics"))
        assert (np.abs(plain - weak).max() > 1e-3) == (seed != INSTRUMENTAL_SEED)
        assert np.abs(np.diff(theirs[f"float64.{seed}.sample"], axis=0)).max() > 0.1
