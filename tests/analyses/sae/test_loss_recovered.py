"""Loss recovered: its ends, its values by hand, and what is replaced where."""

import numpy as np
import pytest
import torch

from analyses.sae.loss_recovered import loss_recovered, recovered
from analyses.sae.replacements import replacements
from tests.tolerances import FLOAT64, assert_close
from tests.workbench.sae.random_sae import random_sae
from workbench.engine.edits import SELF, Run, ablate, patch_reconstruction
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.sae.jumprelu import JumpReLUConfig, JumpReLUSAE
from workbench.sae.topk import TopKSAE

SITE, WIDTH = "tf1.cross_attn", 32
SETTINGS = GenerationSettings(duration=0.5, num_steps=3)
CLIPS = [Clip("a slow song", 0), Clip("a fast song", 1), Clip("a happy song", 2)]
PROMPTS = [clip.prompt for clip in CLIPS]
MEANS = {
    step: torch.linspace(-1, 1, WIDTH, dtype=torch.float64) * (step + 1) for step in range(SETTINGS.num_steps)
}


def linear(b_dec: torch.Tensor, scale: float) -> TopKSAE:
    """It reconstructs `b_dec + scale * (x - b_dec)`: a feature for either sign of each channel."""
    sae = random_sae(WIDTH, 2 * WIDTH, WIDTH).double()
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)]).double()
    with torch.no_grad():
        sae.W_enc.copy_(both.T)
        sae.W_dec.copy_(both * scale)
        sae.b_enc.zero_()
        sae.b_dec.copy_(b_dec)
    return sae


def by_step() -> JumpReLUSAE:
    """Inputs were scaled per step: the mean predictor at the first step, a perfect one at the others.

    At the first step, all values are below the thresholds.
    """
    config = JumpReLUConfig(d_in=WIDTH, d_sae=2 * WIDTH, metadata={"scaled_steps": list(MEANS)})
    weights = {
        **dict(linear(torch.zeros(WIDTH), 1.0).state_dict()),
        "threshold": torch.ones(2 * WIDTH),
        "step_mean": torch.stack(list(MEANS.values())),
        "step_factor": torch.tensor([[1e-6], [1e20], [1e20]]),
    }
    return JumpReLUSAE(config, {name: value.double() for name, value in weights.items()})


def test_the_ends_of_the_scale(tiny64: AceStep15) -> None:
    """Where the mean is given, nothing is recovered relative to it; where everything is, all."""
    sae = by_step()
    seen: list[tuple[int, int]] = []
    found = loss_recovered(
        tiny64, sae, SITE, CLIPS, PROMPTS, SETTINGS, MEANS, lambda *done: seen.append(done)
    )
    of_mean = found["loss_recovered"].sel(ablation="mean")
    assert of_mean.values == pytest.approx([0.0, 1.0, 1.0], abs=1e-9)
    assert found["loss_recovered"].sel(ablation="zero").values[1:] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert (found["loss_recovered_lo"] <= found["loss_recovered"] + FLOAT64).all()
    errors = found["velocity_error"]
    assert_close(errors.sel(replacement="reconstruction")[0], errors.sel(replacement="mean")[0])
    assert (errors.sel(replacement=["mean", "zero"]) > 0).all()
    assert found["sigma"].values.tolist() == list(tiny64.sigmas(SETTINGS))
    assert seen[-1] == (3, 3)
    sizes = np.array(tiny64.step_sizes(SETTINGS))
    lost = (errors.sel(replacement="reconstruction").values * sizes).sum()
    whole = (errors.sel(replacement="zero").values * sizes).sum()
    assert found["loss_recovered_all"].sel(ablation="zero").item() == pytest.approx(1 - lost / whole)


def test_errors_are_those_of_the_velocities_along_the_unedited_run(tiny64: AceStep15) -> None:
    sae = linear(MEANS[1], 0.5)
    found = loss_recovered(tiny64, sae, SITE, CLIPS[:2], PROMPTS[:2], SETTINGS, {1: MEANS[1]})
    expected = np.zeros(2)
    for clip in CLIPS[:2]:
        edits = [patch_reconstruction(sae, SITE, SELF, passes=("cond",)), ablate(SITE, passes=("cond",))]
        runs = [Run(clip), *(Run(clip, (edit,), follows=Run(clip)) for edit in edits)]
        v, *others = tiny64.generate_batch(runs, SETTINGS, velocity_steps=[1]).velocities[1]
        expected += [float((other - v).square().mean()) / 2 for other in others]
    assert_close(found["velocity_error"].sel(replacement=["reconstruction", "zero"], step=1).values, expected)


def test_by_hand() -> None:
    """Clips of one prompt are one unit; a cell whose ablation changes nothing but rounding is undefined."""
    sae, ablated = (
        np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]]),
        np.array([[4.0, 1e-9], [8.0, 0.0], [4.0, 0.0]]),
    )
    value, low, high = recovered(sae, ablated, np.ones((3, 2)), np.array([0, 0, 1]))
    assert value[0] == pytest.approx(0.75)
    assert (low[0], high[0]) == pytest.approx((0.75, 0.75))  # every prompt recovers the same
    assert np.isnan([value[1], low[1], high[1]]).all()
    sae[2, 0] = 3.0
    value, low, high = recovered(sae, ablated, np.ones((3, 2)), np.array([0, 0, 1]))
    assert value[0] == pytest.approx(1 - 6 / 16)
    assert low[0] < value[0] < high[0]


def test_each_step_has_an_edit_of_its_own() -> None:
    edits = replacements(by_step(), SITE, "cond", MEANS)
    assert list(edits) == ["reconstruction", "mean", "zero"]
    for of_steps in edits.values():
        assert [edit.window.steps for edit in of_steps] == [(0, 0), (1, 1), (2, 2)]
    assert all(edit.window.passes == ("cond",) for each in edits.values() for edit in each)
    first, *others = edits["reconstruction"]
    assert all(edit.parameters is first.parameters for edit in others), "its weights are kept once"
