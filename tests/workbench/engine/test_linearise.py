"""A call linearised: its values are those of the plain network, its gradients those of finite differences."""

import pytest
import torch

from tests.double import Smooth
from tests.plain_calls import plain_call, row
from tests.tolerances import assert_close
from workbench.engine.runs import CallInputs, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import PARTS, Site
from workbench.models.ace_step import AceStep15

SETTINGS = GenerationSettings(duration=1.0, num_steps=3)
PROMPTS = {
    "aligned": ("a slow happy song", "a fast happy song"),
    "padded": ("a slow song", "a fast happy violin song with drums"),
}
STEP = 1
NEAR = 1e-4


@pytest.fixture(scope="module", params=PROMPTS)
def inputs(request: pytest.FixtureRequest, tiny64: AceStep15) -> CallInputs:
    clips = [Clip(prompt, 7) for prompt in PROMPTS[request.param]]
    return tiny64.generate_batch(clips, SETTINGS, velocity_steps=(STEP,)).inputs[STEP]


@pytest.fixture(scope="module")
def direction(tiny64: AceStep15) -> torch.Tensor:
    shape = tiny64.frames(SETTINGS.duration), tiny64.config.audio_acoustic_hidden_dim
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain(model: AceStep15, inputs: CallInputs, clip: int, changes: dict | None = None) -> tuple:
    masks = None if inputs.mask is None else [inputs.mask[clip : clip + 1]] * model.n_blocks
    return plain_call(model, row(inputs.arguments, clip), changes, masks)


@pytest.mark.parametrize("clip", [0, 1])
def test_values_are_those_of_the_plain_network(
    tiny64: AceStep15, inputs: CallInputs, clip: int, direction: torch.Tensor
) -> None:
    velocity, values = plain(tiny64, inputs, clip)
    for along in (None, direction):
        found = tiny64.linearise(inputs, clip, tiny64.sites(), along)
        assert_close(found.output, velocity)
        assert set(found.values) == set(values)
        for site, value in values.items():
            assert_close(found.values[site], value, site)
        assert not found.output.requires_grad
        assert not any(value.requires_grad for value in found.values.values())


@pytest.mark.parametrize("part", PARTS)
def test_gradients_are_finite_differences(
    tiny64: AceStep15, inputs: CallInputs, direction: torch.Tensor, part: str
) -> None:
    sites = [Site(block, part) for block in range(tiny64.n_blocks)]
    found = tiny64.linearise(inputs, 0, sites, direction)
    for site in sites:
        gradient = found.gradients[site]
        assert gradient.shape == found.values[site].shape
        draw = torch.Generator().manual_seed(site.block)
        way = torch.randn(gradient.shape, generator=draw, dtype=torch.float64)
        with Smooth():
            up, down = (
                plain(tiny64, inputs, 0, {site: lambda value, move=by * way: value + move})[0]
                for by in (NEAR, -NEAR)
            )
        measured = float(((up - down) * direction).sum()) / (2 * NEAR)
        assert float((gradient * way).sum()) == pytest.approx(measured, rel=1e-5, abs=1e-6), site
        assert gradient.abs().max() > 1e-9


def test_sites_may_come_in_any_order(tiny64: AceStep15, inputs: CallInputs, direction: torch.Tensor) -> None:
    sites = [Site(1, "mlp"), Site(0, "cross_attn.v"), Site(1, "self_attn"), Site(0, "self_attn.q")]
    there = tiny64.linearise(inputs, 1, sites, direction)
    back = tiny64.linearise(inputs, 1, sites[::-1], direction)
    for site in sites:
        assert_close(there.gradients[site], back.gradients[site])


def test_padding_is_not_seen(tiny64: AceStep15, direction: torch.Tensor) -> None:
    clips = [Clip(prompt, 7) for prompt in PROMPTS["padded"]]
    inputs = tiny64.generate_batch(clips, SETTINGS, velocity_steps=(STEP,)).inputs[STEP]
    assert inputs.mask is not None
    padding = ~inputs.mask[0]
    assert padding.sum() == 4
    for part in ("cross_attn.k", "cross_attn.v"):
        gradient = tiny64.linearise(inputs, 0, [Site(1, part)], direction).gradients[Site(1, part)][0]
        assert (gradient[padding] == 0).all()
        assert (gradient[~padding].abs().amax(dim=1) > 0).all()


def test_without_a_direction_there_are_values_only(tiny64: AceStep15, inputs: CallInputs) -> None:
    site = Site(1, "mlp")
    found = tiny64.linearise(inputs, 0, [site])
    assert set(found.values) == {site}
    assert found.gradients == {}


def test_the_recorded_call_stays_as_it_was(
    tiny64: AceStep15, inputs: CallInputs, direction: torch.Tensor
) -> None:
    before = {name: v.clone() for name, v in inputs.arguments.items() if isinstance(v, torch.Tensor)}
    tiny64.linearise(inputs, 1, [Site(0, "block")], direction)
    for name, value in before.items():
        assert torch.equal(inputs.arguments[name], value)
        assert not inputs.arguments[name].requires_grad
    assert all(parameter.grad is None for parameter in tiny64.denoiser.parameters())
