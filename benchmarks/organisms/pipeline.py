"""The whole pipeline: assembled for training, used to generate clips, and written to disk like a hub folder."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    FlowMatchEulerDiscreteScheduler,
)
from jaxtyping import Float
from torch import Tensor

from benchmarks.organisms.text import make_condition_encoder, make_text_encoder
from benchmarks.organisms.vae import FastCodec
from benchmarks.organisms.vocabulary import make_tokenizer
from workbench.models.folders import loading

_BATCH = 25


def make_pipeline(
    vae: AutoencoderOobleck, transformer: AceStepTransformer1DModel, seed: int
) -> AceStepPipeline:
    """A pipeline around `vae` and `transformer`; the fixed text path follows from `seed`."""
    tokenizer = make_tokenizer()
    second = torch.zeros(1, 1, vae.config.sampling_rate, device=vae.device)
    with torch.no_grad():
        latents = FastCodec(vae).encode(second)
    silence = latents[0, :, latents.shape[2] // 2].cpu()
    pipeline = AceStepPipeline(
        vae=vae,
        text_encoder=make_text_encoder(tokenizer, seed),
        tokenizer=tokenizer,
        transformer=transformer,
        condition_encoder=make_condition_encoder(silence, seed),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_pipeline(folder: Path, device: torch.device) -> AceStepPipeline:
    """The pipeline of `folder` in single precision; raises UserError when it cannot be loaded."""
    with loading(folder.name, folder):
        pipeline = AceStepPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def generate(
    pipeline: AceStepPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    seconds: float = 4.0,
    steps: int = 8,
    guidance: float = 3.0,
    shift: float = 3.0,
) -> Float[Tensor, "clip 1 sample"]:
    """Generate one clip per prompt from the noise of its own seed, with a peak of -1 dBFS as in the pipeline.

    A clip depends on its prompt and seed only, up to rounding and to the padding of shorter prompts in its
    batch.
    """
    codec = FastCodec(pipeline.vae)
    clips = []
    for first in range(0, len(prompts), _BATCH):
        batch = list(prompts[first : first + _BATCH])
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[first : first + _BATCH]]
        latents = pipeline(
            batch,
            [""] * len(batch),
            audio_duration=seconds,
            num_inference_steps=steps,
            guidance_scale=guidance,
            shift=shift,
            generator=generators,
            output_type="latent",
        ).audios
        audio = codec.decode(latents.transpose(1, 2)).cpu()
        peak = audio.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)
        clips.append(audio * 10 ** (-1 / 20) / peak)
    return torch.cat(clips)


def _clean_json(path: Path) -> None:
    """Remove the path that a configuration was loaded from, and name the tokenizer's class in the index.

    A part of transformers' also names the number format to load its weights in: single precision, as diffusers' parts
    are loaded.
    """
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    if path.name == "model_index.json":
        config["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    if "dtype" in config:
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_pipeline(pipeline: AceStepPipeline, folder: Path, notes: dict[str, Any]) -> None:
    """Write the pipeline in half precision to `folder`, which is replaced, with `notes` as JSON files beside it.

    The pipeline itself becomes half precision.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    temporary.chmod(0o755)
    for part in ("vae", "text_encoder", "condition_encoder", "transformer"):
        getattr(pipeline, part).half()
    pipeline.save_pretrained(temporary)
    for path in (temporary / "model_index.json", *temporary.glob("*/config.json")):
        _clean_json(path)
    for path in temporary.glob("*/*.safetensors"):
        path.chmod(0o644)  # safetensors are written readable for their owner only
    for name, note in notes.items():
        (temporary / name).write_text(json.dumps(note, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
