"""The models that the conformance checks run on, with facts that the checks must not take from their adapters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tests.tiny_ace_step import save_tiny_pipeline as save_tiny_ace_step
from tests.tiny_ace_step_v1 import save_tiny_v1
from tests.tiny_audioldm2 import save_tiny_pipeline as save_tiny_audioldm2
from tests.tiny_stable_audio import save_tiny_stable_audio
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model, model_source
from workbench.models.ace_step_v1.adapter import guidance
from workbench.models.audioldm2 import conditioned_blocks
from workbench.models.base import AudioDiffusionModel

GUIDED = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)
UNGUIDED: dict[str, Any] = {"guidance_scale": 1.0}
MODULES = {
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "heads": "to_out.0",  # its input
}


@dataclass(frozen=True)
class Architecture:
    """A model, and how to call its pipeline without the workbench.

    `save` makes its folder. `untraced` calls its pipeline for clips; `by_frame` converts the pipeline's latents to the
    layout of `Generation`. `blocks` are the modules in order of computation, and `parts` the names of self-attention,
    cross-attention and MLP in a block. `order` is the order of passes in a call. `changes` are further settings to
    check, besides guidance on and off. `block` is the one to edit if one is enough: the text it reads matters. `edits`
    are not checked if they have been for a smaller model of the same adapter. If `masks_padding` is not set, padding is
    zero. `embedder` embeds the conditioning in every call, if there is one.
    """

    name: str
    adapter: str
    save: Callable[[Path], Path]
    untraced: Callable[..., torch.Tensor]
    blocks: Callable[[AudioDiffusionModel], Sequence[torch.nn.Module]]
    parts: tuple[str, str, str]
    by_frame: Callable[[torch.Tensor], torch.Tensor] = lambda latents: latents
    order: tuple[str, ...] = ("cond", "null")
    duration: float = 1.0
    odd_duration: float = 1.3
    changes: tuple[dict[str, Any], ...] = ()
    block: int = 1
    edits: bool = True
    masks_padding: bool = True
    embedder: str | None = None
    sings: bool = False


@dataclass(frozen=True)
class Subject:
    """An architecture and its model in float32 and float64, loaded when first needed."""

    architecture: Architecture
    folder: Path

    @cached_property
    def single(self) -> AudioDiffusionModel:
        """The model in float32."""
        return load_model(self.folder)

    @cached_property
    def exact(self) -> AudioDiffusionModel:
        """The model in float64."""
        return load_model(self.folder, dtype="float64")

    @property
    def block(self) -> int:
        """The block to edit if one is enough."""
        return self.architecture.block

    @property
    def settings(self) -> GenerationSettings:
        """Four guided steps."""
        return GUIDED.model_copy(update={"duration": self.architecture.duration})

    @property
    def variants(self) -> list[GenerationSettings]:
        """All settings to check."""
        changes = ({}, UNGUIDED, *self.architecture.changes)
        return [self.settings.model_copy(update=change) for change in changes]

    def modules(self, model: AudioDiffusionModel, block: int) -> dict[str, tuple[torch.nn.Module, bool]]:
        """For each part of a block, the module with its value, and whether that is the module's input."""
        module = self.architecture.blocks(model)[block]
        found = {"block": (module, False)}
        for part, name in zip(("self_attn", "cross_attn", "mlp"), self.architecture.parts, strict=True):
            found[part] = (module.get_submodule(name), False)
        for part in ("self_attn", "cross_attn"):
            for inner, name in MODULES.items():
                found[f"{part}.{inner}"] = (found[part][0].get_submodule(name), inner == "heads")
        return found

    def untraced(
        self, model: AudioDiffusionModel, clips: Sequence[Clip], settings: GenerationSettings
    ) -> torch.Tensor:
        """Latents of the pipeline without nnsight or the workbench."""
        made = self.architecture.untraced(model, clips, settings, output_type="latent")
        return self.architecture.by_frame(made)

    def untraced_audio(
        self, model: AudioDiffusionModel, clip: Clip, settings: GenerationSettings
    ) -> torch.Tensor:
        """Audio (channel, sample) of the pipeline without nnsight or the workbench."""
        made = self.architecture.untraced(model, [clip], settings, **self.audio_output)
        return made.reshape(-1, made.shape[-1])

    @property
    def audio_output(self) -> dict[str, str]:
        """Arguments with which a pipeline returns a tensor of audio."""
        return {} if self.architecture.adapter == "AceStepV1" else {"output_type": "pt"}


def texts(clips: Sequence[Clip]) -> dict[str, Any]:
    """Prompts and lyrics as arguments of the pipelines that have lyrics."""
    return {"prompt": [clip.prompt for clip in clips], "lyrics": [clip.lyrics for clip in clips]}


def ace_step(model: Any, clips: Sequence[Clip], settings: GenerationSettings, **output: str) -> torch.Tensor:
    return model.pipeline(
        **texts(clips),
        audio_duration=settings.duration,
        num_inference_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        **settings.options,
        latents=model.noise(clips, settings.duration),
        **output,
    ).audios


def ace_step_v1(
    model: Any, clips: Sequence[Clip], settings: GenerationSettings, **output: str
) -> torch.Tensor:
    return model.pipeline(
        **texts(clips),
        seeds=[clip.seed for clip in clips],
        audio_duration=settings.duration,
        num_inference_steps=settings.num_steps,
        guidance=guidance(settings),
        scheduler=str(settings.options.get("scheduler", "euler")),
        **output,
    ).audios


def stable_audio(
    model: Any, clips: Sequence[Clip], settings: GenerationSettings, **output: str
) -> torch.Tensor:
    """Call a pipeline that draws its own noise from the clips' seeds."""
    negative = settings.options.get("negative_prompt")
    return model.pipeline(
        prompt=[clip.prompt for clip in clips],
        negative_prompt=None if negative is None else [negative] * len(clips),
        audio_end_in_s=settings.duration,
        num_inference_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(clip.seed) for clip in clips],
        **output,
    ).audios


def audioldm2(model: Any, clips: Sequence[Clip], settings: GenerationSettings, **output: str) -> torch.Tensor:
    return model.pipeline(
        prompt=[clip.prompt for clip in clips],
        negative_prompt=[settings.options.get("negative_prompt", "")] * len(clips),
        audio_length_in_s=settings.duration,
        num_inference_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        latents=model.noise(clips, settings.duration),
        **output,
    ).audios


def organism(name: str) -> Callable[[Path], Path]:
    """The folder of a shipped organism."""
    return lambda _: Path(model_source(name))


NEGATIVE = {"options": {"negative_prompt": "low quality"}}
_ACE_STEP: dict[str, Any] = {
    "adapter": "AceStep15",
    "untraced": ace_step,
    "blocks": lambda model: model.pipeline.transformer.layers,
    "parts": ("self_attn", "cross_attn", "mlp"),
    "embedder": "condition_embedder",
    "sings": True,
}
ARCHITECTURES = (
    Architecture(
        name="ACE-Step 1.5",
        save=save_tiny_ace_step,
        changes=({"options": {"cfg_interval_start": 0.05, "cfg_interval_end": 0.4}},),
        **_ACE_STEP,
    ),
    Architecture(name="organism-shared", save=organism("organism-shared"), block=3, edits=False, **_ACE_STEP),
    Architecture(
        name="ACE-Step v1",
        adapter="AceStepV1",
        save=save_tiny_v1,
        untraced=ace_step_v1,
        blocks=lambda model: model.pipeline.transformer.transformer_blocks,
        parts=("attn", "cross_attn", "ff"),
        by_frame=lambda latents: latents.permute(0, 3, 1, 2).flatten(2),
        order=("cond", "text", "null"),
        changes=(
            {"options": {"guidance_interval": 1.0}},
            {"options": {"scheduler": "pingpong"}},
            {"options": {"guidance_scale_text": 6.0, "guidance_scale_lyric": 2.0, "cfg_type": "cfg"}},
        ),
        sings=True,
    ),
    Architecture(
        name="Stable Audio Open",
        adapter="StableAudioOpen",
        save=save_tiny_stable_audio,
        untraced=stable_audio,
        blocks=lambda model: model.pipeline.transformer.transformer_blocks,
        parts=("attn1", "attn2", "ff"),
        by_frame=lambda latents: latents.transpose(1, 2),
        order=("null", "cond"),
        duration=2.0,
        odd_duration=1.23456,
        changes=(NEGATIVE,),
        masks_padding=False,
        embedder="cross_attention_proj.0",
    ),
    Architecture(
        name="AudioLDM 2",
        adapter="AudioLDM2",
        save=save_tiny_audioldm2,
        untraced=audioldm2,
        blocks=lambda model: [place.block for place in conditioned_blocks(model.denoiser)],
        parts=("attn1", "attn2", "ff"),
        by_frame=lambda latents: latents.transpose(1, 2).flatten(2),
        order=("null", "cond"),
        duration=0.26,
        odd_duration=0.49,
        changes=(NEGATIVE,),
    ),
)
