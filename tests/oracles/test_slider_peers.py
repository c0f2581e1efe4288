"""The training of a concept slider against a plain script with diffusers and PEFT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig

from analyses.steering.concept_slider import concept_slider
from tests.tolerances import assert_close, difference
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import load_prompt_set

SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)
SITE, NAMES = "tf1.cross_attn", ("to_q", "to_k", "to_v", "to_out.0")
OPTIONS: dict[str, Any] = {
    "rank": 2,
    "alpha": 3.0,
    "seed": 5,
    "eta": 2.0,
    "learning_rate": 0.01,
    "weight_decay": 0.1,
}
ITERATIONS = 3


class Stop(Exception):
    pass


def call(model: AceStep15, clip: Clip, step: int) -> dict[str, Any]:
    """The arguments of the transformer at a step: rows cond and null."""
    seen: list[dict[str, Any]] = []

    def record(module: torch.nn.Module, args: Any, given: dict[str, Any]) -> None:
        seen.append(given)
        if len(seen) > step:
            raise Stop

    hook = model.pipeline.transformer.register_forward_pre_hook(record, with_kwargs=True)
    try:
        model.pipeline(
            prompt=clip.prompt,
            lyrics="",
            audio_duration=SETTINGS.duration,
            num_inference_steps=SETTINGS.num_steps,
            guidance_scale=SETTINGS.guidance_scale,
            latents=model.noise([clip], SETTINGS.duration),
            output_type="latent",
        )
    except Stop:
        return seen[step]
    finally:
        hook.remove()
    raise AssertionError("the pipeline ended early")


def velocity(transformer: Any, row: dict[str, Any], conditioning: torch.Tensor) -> torch.Tensor:
    return transformer(
        hidden_states=row["hidden_states"][:1],
        timestep=row["timestep"][:1],
        timestep_r=row["timestep_r"][:1],
        encoder_hidden_states=conditioning,
        context_latents=row["context_latents"][:1],
        return_dict=False,
    )[0]


def plain_training(
    model: AceStep15, pairs: Sequence[tuple[str, str]]
) -> tuple[list[float], list[torch.Tensor]]:
    """The loss of each iteration, and the factors (A, B) of each module."""
    transformer = model.pipeline.transformer
    torch.manual_seed(OPTIONS["seed"])
    names = [f"layers.1.cross_attn.{name}" for name in NAMES]
    transformer.add_adapter(
        LoraConfig(r=OPTIONS["rank"], lora_alpha=OPTIONS["alpha"], target_modules=names), "plain"
    )
    trained = [weight for name, weight in transformer.named_parameters() if "lora_" in name]
    transformer.requires_grad_(False)
    for weight in trained:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, lr=OPTIONS["learning_rate"], weight_decay=OPTIONS["weight_decay"])
    losses = []
    for iteration in range(ITERATIONS):
        draws = np.random.default_rng((OPTIONS["seed"], iteration))
        positive, negative = pairs[draws.integers(len(pairs))]
        step, noise = int(draws.integers(1, SETTINGS.num_steps)), int(draws.integers(2**63))
        row = call(model, Clip(negative, noise), step)
        neutral, null = row["encoder_hidden_states"].split(1)
        wanted = call(model, Clip(positive, 0), 0)["encoder_hidden_states"][:1]
        transformer.disable_adapters()
        with torch.no_grad():
            v_pos, v_neutral, v_null = (velocity(transformer, row, each) for each in (wanted, neutral, null))
        transformer.enable_adapters()
        target = v_neutral + OPTIONS["eta"] * (v_pos - v_null)
        loss = ((velocity(transformer, row, wanted) - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses, trained


def test_training_is_that_of_a_plain_script(tiny64: AceStep15) -> None:
    pairs = [
        (pair.clean.text, pair.corrupt.text)
        for pair in load_prompt_set("organism").pairs("mood", 6, OPTIONS["seed"])
        if pair.clean_value == "happy"
    ]
    slider = concept_slider(
        tiny64, "mood", SITE, pairs=len(pairs), iterations=ITERATIONS, settings=SETTINGS, **OPTIONS
    )
    assert slider.training["prompts"] == [list(pair) for pair in pairs]
    losses, trained = plain_training(load_model(tiny64.source, dtype="float64"), pairs)
    assert_close(np.array(slider.training["losses"]), np.array(losses))
    own = [factor.value for each in slider.factors.values() for factor in (each.down, each.up)]
    assert len(own) == len(trained) == 8
    for mine, theirs in zip(own, trained, strict=True):
        assert_close(mine, theirs)
        assert mine.any()


def test_diffusers_reads_the_file(tiny64: AceStep15, tmp_path: Path) -> None:
    slider = concept_slider(
        tiny64, "mood", SITE, pairs=1, iterations=2, settings=SETTINGS, **{**OPTIONS, "learning_rate": 1.0}
    )
    file = slider.save(tmp_path / "mood.safetensors")
    clip = Clip("a slow sad song", 3)
    plain, made = tiny64.generate_batch([clip, Run(clip, slider.at(1.0))], SETTINGS).latents
    other = load_model(tiny64.source, dtype="float64")
    other.pipeline.transformer.load_lora_adapter(str(file), prefix=None, use_safetensors=True)
    assert_close(made, other.generate_batch([clip], SETTINGS).latents[0])
    assert difference(made, plain) > 1e-3
