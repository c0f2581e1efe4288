"""How far a step moves the latents, measured by pushing the network's output."""

from pathlib import Path

import pytest
import torch

from tests.tiny_stable_audio import save_tiny_stable_audio
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.models.stable_audio import StableAudioOpen

SETTINGS = GenerationSettings(duration=1.0, num_steps=3, guidance_scale=1.0)
CLIPS = [Clip("a slow song", 1)]
PUSH = 1e-3


def moved(model: AudioDiffusionModel, step: int) -> float:
    """How far the latents after a step lie apart when the network's output in it is pushed by `PUSH` everywhere."""
    calls: list[torch.Tensor] = []

    def push(module: torch.nn.Module, given: tuple, arguments: dict, output: tuple) -> tuple:
        calls.append(arguments["hidden_states"] if "hidden_states" in arguments else given[0])
        return (
            (output[0] + PUSH * (torch.arange(output[0].shape[-1]) % 2),)
            if len(calls) == step + 1
            else output
        )

    def after(pushed: bool) -> torch.Tensor:
        calls.clear()
        hooks = [model.denoiser.register_forward_hook(push, with_kwargs=True)] if pushed else []
        hooks = hooks or [
            model.denoiser.register_forward_hook(
                lambda module, given, arguments, output: calls.append(
                    arguments.get("hidden_states", *given[:1])
                ),
                with_kwargs=True,
            )
        ]
        latents = model.generate_batch(CLIPS, SETTINGS).latents
        for hook in hooks:
            hook.remove()
        return latents if step + 1 == SETTINGS.num_steps else calls[step + 1]

    return float((after(True) - after(False)).abs().max()) / PUSH


def test_flow_matching(model64: AudioDiffusionModel) -> None:
    sizes = torch.tensor(model64.step_sizes(SETTINGS), dtype=torch.float64)
    found = torch.tensor([moved(model64, step) for step in range(3)], dtype=torch.float64)
    torch.testing.assert_close(found / found.sum(), sizes / sizes.sum(), rtol=2e-2, atol=0.0)


def test_stable_audio_in_its_steps_of_first_order(tmp_path: Path) -> None:
    """The first and the last; between them the solver also looks back."""
    model = StableAudioOpen("tiny", str(save_tiny_stable_audio(tmp_path / "audio")), dtype="float64")
    sizes, sigmas = model.step_sizes(SETTINGS), model.sigmas(SETTINGS)
    scaled = (sigmas[1] ** 2 + 1) ** -0.5  # the network sees latents of unit size
    assert moved(model, 0) == pytest.approx(sizes[0] * scaled, rel=1e-6)
    assert moved(model, 2) == pytest.approx(sizes[2], rel=1e-6)
