"""Adapter for ACE-Step v1 3.5B, the model of the TADA paper (arXiv 2602.11910)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field

from cache.errors import UserError
from workbench.engine.batch import Batch, Row
from workbench.engine.rows import CallRows
from workbench.engine.runs import CallLabel, Clip
from workbench.engine.segments import Conditioning, Span, words_at_tokens
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step_v1.audio import decode_latents
from workbench.models.ace_step_v1.pipeline import (
    FRAMES_PER_SECOND,
    MAX_TEXT_TOKENS,
    SAMPLE_RATE,
    SCHEDULERS,
    AceStepV1Pipeline,
    CfgType,
    Guidance,
    published_folder,
)
from workbench.models.ace_step_v1.rotary import rotary_table
from workbench.models.ace_step_v1.schedulers import OmegaReduction
from workbench.models.base import AudioDiffusionModel
from workbench.models.options import Options, options_of
from workbench.models.pipeline_call import Move, PipelineCall


class AceStepV1Options(Options):
    """Options of ACE-Step v1, with the published pipeline's defaults; see `Guidance`.

    Only the pipeline offers Heun's scheduler: it calls the denoiser twice at one sigma, and labels could not tell the
    two calls apart.
    """

    architecture = "ACE-Step v1"

    shift: float = Field(3.0, gt=0)
    scheduler: Literal["euler", "pingpong"] = "euler"
    cfg_type: CfgType = "apg"
    guidance_interval: float = Field(0.5, gt=0, le=1)
    guidance_interval_decay: float = Field(0.0, ge=0, le=1)
    min_guidance_scale: float = Field(3.0, ge=0)
    guidance_scale_text: float = Field(0.0, ge=0)
    guidance_scale_lyric: float = Field(0.0, ge=0)
    erg_tag: bool = True
    erg_lyric: bool = True
    erg_diffusion: bool = True
    omega: float = 10.0
    omega_reduction: OmegaReduction = "sample"


class CallOfAceStepV1(PipelineCall):
    """`CallAccess` of an `AceStepV1Transformer` envoy inside a running nnsight trace."""

    part_names: ClassVar[dict[str, str]] = {"self_attn": "attn", "cross_attn": "cross_attn", "mlp": "ff"}
    mask_name = "encoder_attention_mask"

    def find_blocks(self, network: Any) -> Any:
        """The transformer's blocks."""
        return network.transformer_blocks

    def row_mask(self, rows: CallRows) -> Bool[torch.Tensor, "row token"] | None:
        """Return which conditioning tokens are visible to each readable row; None without padding."""
        mask = self.arguments()["encoder_attention_mask"][list(rows.readable)]
        return None if bool(mask.all()) else mask

    def as_attention_mask(self, mask: Bool[torch.Tensor, "row token"]) -> torch.Tensor:
        """Return the mask unchanged: the cross-attention takes it in this form."""
        return mask

    def choose_rows(self, rows: CallRows, clips: Sequence[Row]) -> None:
        """Make the network compute only the needed rows; remember the positions of others that are read."""
        self._stored_positions = self.arguments()["encoder_positions"][list(rows.stored)]
        super().choose_rows(rows, clips)

    def move_positions(self, block: int, moves: Sequence[Move]) -> None:
        """Give rows the rotary positions of other rows' conditioning tokens."""
        attention = self._part(block, "cross_attn")
        args, given = attention.inputs
        cos, sin = given["encoder_rotary"]
        stored = rotary_table(self._stored_positions, cos.shape[-1], self.network.rope_theta, cos.dtype)
        moved = tuple(_moved(*tables, moves) for tables in zip((cos, sin), stored, strict=True))
        attention.inputs = (args, {**given, "encoder_rotary": moved})

    def as_latents(
        self, output: Float[torch.Tensor, "row channel band frame"]
    ) -> Float[torch.Tensor, "row frame latent_channel"]:
        """Return the velocity with latent time as its second axis, channels and bands as its last."""
        return latents_by_frame(output)


class AceStepV1(AudioDiffusionModel):
    """ACE-Step v1 3.5B as an `AudioDiffusionModel`."""

    pipeline_class = AceStepV1Pipeline
    call_class = CallOfAceStepV1
    options_class = AceStepV1Options
    sample_rate = SAMPLE_RATE
    token_seconds = 1 / FRAMES_PER_SECOND

    @classmethod
    def weights_folder(cls, source: str) -> Path:
        """Return the local folder of a checkpoint; a hub id is downloaded first, unless it is in the hub cache."""
        return published_folder(source)

    def tokens(self, duration: float) -> int:
        """Latent-time tokens of a clip of `duration` seconds: one per complete latent frame."""
        return self.pipeline.frames(duration)

    def seconds(self, duration: float) -> float:
        """Seconds of audio of a clip of `duration` seconds, rounded down to whole latent frames."""
        return self.pipeline.frames(duration) / FRAMES_PER_SECOND

    def passes(self, settings: GenerationSettings) -> tuple[str, ...]:
        """cond; under guidance also null, with text between them if text and lyrics have separate scales."""
        return guidance(settings).passes

    def sigmas(self, settings: GenerationSettings) -> list[float]:
        """Sigma of each step."""
        chosen = options(settings)
        scheduler = SCHEDULERS[chosen.scheduler](shift=chosen.shift)
        scheduler.set_timesteps(settings.num_steps)
        return [float(sigma) for sigma in scheduler.sigmas[:-1]]

    def scheduler_name(self, settings: GenerationSettings) -> str:
        """Return the name of the scheduler that the settings choose."""
        return SCHEDULERS[options(settings).scheduler].__name__

    def segments(self, clip: Clip, settings: GenerationSettings) -> dict[str, Span]:  # noqa: ARG002
        """Spans of the conditioning tokens of a clip: speaker (one token), text, lyrics."""
        return _segments(self.pipeline.text_tokens(clip.prompt), len(self.pipeline.lyric_ids(clip.lyrics)))

    def encoded_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:  # noqa: ARG002
        """Return the tokens that UMT5 reads from a clip's prompt, and the tokens of its lyrics."""
        text = self.pipeline.tokenizer(clip.prompt, truncation=True, max_length=MAX_TEXT_TOKENS).input_ids
        return tuple(text), tuple(self.pipeline.lyric_ids(clip.lyrics))

    def conditioning(self, clip: Clip, settings: GenerationSettings) -> Conditioning:
        """Return the spans of the segments of a clip's conditioning and of the words of its prompt."""
        offsets = self.pipeline.tokenizer(
            clip.prompt, truncation=True, max_length=MAX_TEXT_TOKENS, return_offsets_mapping=True
        ).offset_mapping
        return Conditioning(self.segments(clip, settings), words_at_tokens(clip.prompt, 0, offsets, 1))

    def conditionings(self, clips: Sequence[Clip], settings: GenerationSettings) -> list[Conditioning]:
        """Like `conditioning`, with texts padded to the batch's longest, so that lyrics begin at the same token."""
        alone = super().conditionings(clips, settings)
        n_text = max(last for place in alone for first, last in [place.segments["text"]]) - 1
        lengths = [last - first for place in alone for first, last in [place.segments["lyrics"]]]
        return [
            Conditioning(_segments(n_text, length), place.words)
            for place, length in zip(alone, lengths, strict=True)
        ]

    def label_call(self, inputs: dict[str, Any], n_clips: int) -> CallLabel:
        """Label a call by its inputs: step and sigma from its timestep, passes from their names in the call."""
        timesteps = self.pipeline.scheduler.timesteps
        step = self.step_of(inputs["timestep"].flatten()[0], timesteps)
        return CallLabel(
            step=step,
            sigma=float(timesteps[step]) / 1000,
            clips=tuple(row % n_clips for row in range(len(inputs["passes"]))),
            passes=inputs["passes"],
        )

    def decode(
        self,
        latents: Float[torch.Tensor, "clip frame latent_channel"],
        duration: float | None = None,  # noqa: ARG002 - the latents are the clip's
    ) -> Float[torch.Tensor, "clip channel sample"]:
        """Decode latents to 48 kHz stereo with the autoencoder and the vocoder, as the pipeline does."""
        maps = latents.unflatten(-1, (self.config.in_channels, -1)).permute(0, 2, 3, 1)
        return decode_latents(maps, self.pipeline.dcae, self.pipeline.vocoder, SAMPLE_RATE)

    def step_passes(self, settings: GenerationSettings) -> list[tuple[str, ...]]:
        """Guidance passes of each step; outside the interval there is only one."""
        guided = guidance(settings)
        return [guided.passes_at(step, settings.num_steps) for step in range(settings.num_steps)]

    def guided_throughout(self, settings: GenerationSettings) -> GenerationSettings:
        """The same settings, with guidance in every step."""
        return settings.model_copy(update={"options": {**settings.options, "guidance_interval": 1.0}})

    def check_lyrics(self, lyrics: str) -> None:
        """Raise UserError for lyrics in an unsupported script, or if their vocabulary is missing."""
        self.pipeline.lyric_ids(lyrics)

    def check_batch(self, batch: Batch, settings: GenerationSettings) -> None:
        """Raise UserError for edits in a batch whose clips influence each other."""
        if batch.edits and options(settings).omega_reduction == "batch":
            raise UserError(
                "With omega_reduction=batch the clips of a batch influence each other, so one arm's patch would affect "
                "all of them. Use omega_reduction=sample."
            )

    def pipeline_arguments(self, clips: Sequence[Clip], settings: GenerationSettings) -> dict[str, Any]:
        chosen = options(settings)
        return {
            "prompt": [clip.prompt for clip in clips],
            "lyrics": [clip.lyrics for clip in clips],
            "seeds": [clip.seed for clip in clips],
            "audio_duration": settings.duration,
            "num_inference_steps": settings.num_steps,
            "scheduler": chosen.scheduler,
            "shift": chosen.shift,
            "omega": chosen.omega,
            "omega_reduction": chosen.omega_reduction,
            "guidance": guidance(settings),
            "output_type": "latent",
        }

    def _text_projections(self, block: int) -> tuple[torch.nn.Linear, ...]:  # noqa: ARG002 - the same for all
        return (self.pipeline.transformer.genre_embedder,)

    @contextmanager
    def following(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        self.pipeline.after_guidance = change
        try:
            yield
        finally:
            del self.pipeline.after_guidance  # the class's own again

    def output_latents(self, output: Any) -> Float[torch.Tensor, "clip frame latent_channel"]:
        return latents_by_frame(output.audios)


def options(settings: GenerationSettings) -> AceStepV1Options:
    """Return the options in the settings; raises UserError for options that this model does not have."""
    return options_of(AceStepV1Options, settings)


def guidance(settings: GenerationSettings) -> Guidance:
    """Return the guidance that the settings describe."""
    chosen = options(settings)
    return Guidance(
        cfg_type=chosen.cfg_type,
        scale=settings.guidance_scale,
        interval=chosen.guidance_interval,
        interval_decay=chosen.guidance_interval_decay,
        min_scale=chosen.min_guidance_scale,
        text_scale=chosen.guidance_scale_text,
        lyric_scale=chosen.guidance_scale_lyric,
        erg_tag=chosen.erg_tag,
        erg_lyric=chosen.erg_lyric,
        erg_diffusion=chosen.erg_diffusion,
    )


def latents_by_frame(
    maps: Float[torch.Tensor, "row channel band frame"],
) -> Float[torch.Tensor, "row frame latent_channel"]:
    """Return latents with time as the second axis; channels and bands become one axis, ordered by channel."""
    return maps.permute(0, 3, 1, 2).flatten(2)


def _segments(n_text: int, n_lyrics: int) -> dict[str, Span]:
    return {"speaker": (0, 1), "text": (1, 1 + n_text), "lyrics": (1 + n_text, 1 + n_text + n_lyrics)}


def _moved(
    table: Float[torch.Tensor, "row token channel"],
    stored: Float[torch.Tensor, "stored_row token channel"],
    moves: Sequence[Move],
) -> Float[torch.Tensor, "row token channel"]:
    """Return a table with positions moved between its rows, or to them from stored ones, which follow its rows."""
    moved, readable = table.clone(), torch.cat([table, stored])
    for row, source, tokens in moves:
        at: slice | list[int] = slice(None) if tokens is None else list(tokens)
        moved[row, at] = readable[source, at]
    return moved
