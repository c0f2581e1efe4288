"""Adapter for ACE-Step 1.5 (`diffusers.AceStepPipeline`) on nnsight's `DiffusionModel`."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import AceStepPipeline
from jaxtyping import Bool, Float
from pydantic import Field, model_validator

from workbench.engine.rows import CallRows
from workbench.engine.runs import CallLabel, Clip
from workbench.engine.segments import Conditioning, words_at_tokens
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.models.noise import seeded_noise
from workbench.models.options import Options, options_of
from workbench.models.pipeline_call import PipelineCall, select_rows

MAX_TEXT_TOKENS, MAX_LYRIC_TOKENS = 256, 2048  # the pipeline truncates at these lengths
PEAK = 10 ** (-1 / 20)  # the pipeline normalises every clip to -1 dBFS


class CallOfAceStep(PipelineCall):
    """`CallAccess` of an `AceStepTransformer1DModel` envoy inside a running nnsight trace."""

    part_names: ClassVar[dict[str, str]] = {
        "self_attn": "self_attn",
        "cross_attn": "cross_attn",
        "mlp": "mlp",
    }
    times: ClassVar[tuple[str, ...]] = ("timestep", "timestep_r")

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.real_tokens: Bool[torch.Tensor, "clip token"] | None = None

    def find_blocks(self, network: Any) -> Any:
        """The transformer's layers."""
        return network.layers

    def skip_conditioning(self, n_rows: int) -> None:
        """Skip embedding the conditioning: all values that depend on it are cached."""
        given = self.arguments()
        nothing = given["hidden_states"].new_zeros(())
        n_tokens = given["encoder_hidden_states"].shape[1]
        self.network.condition_embedder.skip(nothing.expand(n_rows, n_tokens, 1))

    def row_mask(self, rows: CallRows) -> Bool[torch.Tensor, "row token"] | None:
        """Return which conditioning tokens are visible to each readable row; None without padding."""
        if self.real_tokens is None or bool(self.real_tokens.all()):
            return None
        clips = [rows.label.clips[row] for row in rows.readable]
        return self.real_tokens[torch.tensor(clips, device=self.real_tokens.device)]


class AceStepOptions(Options):
    """Options of ACE-Step 1.5, with its pipeline's defaults.

    `shift` bends the sigma schedule towards noise; guidance is on while 1 - sigma is in
    [cfg_interval_start, cfg_interval_end].
    """

    architecture = "ACE-Step 1.5"

    shift: float = Field(3.0, gt=0)
    cfg_interval_start: float = Field(0.0, ge=0, le=1)
    cfg_interval_end: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _interval(self) -> "AceStepOptions":
        if self.cfg_interval_start > self.cfg_interval_end:
            raise ValueError(
                f"the guidance interval is reversed: it starts at {self.cfg_interval_start:g} and ends at "
                f"{self.cfg_interval_end:g} (in 1 - sigma)"
            )
        return self


class AceStep15(AudioDiffusionModel):
    """ACE-Step 1.5 (base, sft, turbo, XL, or an embedded organism) as an `AudioDiffusionModel`.

    The pipeline runs unchanged; nnsight reads and writes its transformer. There is one addition: the 1.5 transformer
    attends to the padding of shorter prompts in a batch, which would make a row depend on the others; here padding is
    masked in the cross-attention, so that a batch row equals the same clip generated alone, up to rounding.
    """

    pipeline_class = AceStepPipeline
    call_class = CallOfAceStep
    options_class = AceStepOptions

    @property
    def sample_rate(self) -> int:
        """Samples per second of the decoded audio."""
        return self.pipeline.sample_rate

    def frames(self, duration: float) -> int:
        """Latent frames of a clip of `duration` seconds."""
        return math.ceil(duration * self.pipeline.latents_per_second)

    def tokens(self, duration: float) -> int:
        """Latent-time tokens of a clip of `duration` seconds: latent frames in patches."""
        return math.ceil(self.frames(duration) / self.config.patch_size)

    def seconds(self, duration: float) -> float:
        """Seconds of audio of a clip of `duration` seconds, rounded up to whole latent frames."""
        return self.frames(duration) / self.pipeline.latents_per_second

    @property
    def token_seconds(self) -> float:
        """Seconds of music per token."""
        return self.config.patch_size / self.pipeline.latents_per_second

    def passes(self, settings: GenerationSettings) -> tuple[str, ...]:
        """("cond", "null") under guidance, else ("cond",); turbo checkpoints have guidance distilled into them."""
        guided = settings.guidance_scale > 1 and not self.pipeline.is_turbo
        return ("cond", "null") if guided else ("cond",)

    def sigmas(self, settings: GenerationSettings) -> list[float]:
        """Sigma of each step."""
        schedule = self.pipeline._get_timestep_schedule(
            settings.num_steps, options_of(AceStepOptions, settings).shift, dtype=torch.float32
        )
        return [float(sigma) for sigma in schedule]

    def step_passes(self, settings: GenerationSettings) -> list[tuple[str, ...]]:
        """Guidance passes of each step; outside the interval there is only one."""
        chosen = options_of(AceStepOptions, settings)
        low, high = chosen.cfg_interval_start, chosen.cfg_interval_end
        return [
            self.passes(settings) if low <= 1 - sigma <= high else ("cond",)
            for sigma in self.sigmas(settings)
        ]

    def guided_throughout(self, settings: GenerationSettings) -> GenerationSettings:
        """The same settings, with guidance in every step."""
        throughout = {"cfg_interval_start": 0.0, "cfg_interval_end": 1.0}
        return settings.model_copy(update={"options": {**settings.options, **throughout}})

    def check_lyrics(self, lyrics: str) -> None:
        """Do nothing: any lyrics are supported."""

    def encoded_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:
        """Return the tokens read from a clip's prompt, in its template, and from its lyrics."""
        text, lyrics = self.pipeline._format_prompt(
            clip.prompt, clip.lyrics, audio_duration=settings.duration
        )
        limits = ((text, MAX_TEXT_TOKENS), (lyrics, MAX_LYRIC_TOKENS))
        return tuple(
            tuple(self.pipeline.tokenizer(words, truncation=True, max_length=limit).input_ids)
            for words, limit in limits
        )

    def segments(self, clip: Clip, settings: GenerationSettings) -> dict[str, tuple[int, int]]:
        """Spans (first, last + 1) of the conditioning tokens of a clip: lyrics, timbre (one token), text."""
        n_text, n_lyrics = map(len, self.encoded_tokens(clip, settings))
        return {
            "lyrics": (0, n_lyrics),
            "timbre": (n_lyrics, n_lyrics + 1),
            "text": (n_lyrics + 1, n_lyrics + 1 + n_text),
        }

    def conditioning(self, clip: Clip, settings: GenerationSettings) -> Conditioning:
        """Return the spans of the segments of a clip's conditioning and of the words of its prompt."""
        segments = self.segments(clip, settings)
        text, mark = (
            self.pipeline._format_prompt(prompt, clip.lyrics, audio_duration=settings.duration)[0]
            for prompt in (clip.prompt, "\0")
        )
        offsets = self.pipeline.tokenizer(
            text, truncation=True, max_length=MAX_TEXT_TOKENS, return_offsets_mapping=True
        ).offset_mapping
        words = words_at_tokens(clip.prompt, mark.index("\0"), offsets, segments["text"][0])
        return Conditioning(segments, words)

    def _text_projections(self, block: int) -> tuple[torch.nn.Linear, ...]:  # noqa: ARG002 - the same for all
        embedder: torch.nn.Linear = self.pipeline.transformer.condition_embedder
        return self.pipeline.condition_encoder.text_projector, embedder

    def noise(
        self, clips: Sequence[Clip], duration: float
    ) -> Float[torch.Tensor, "clip frame latent_channel"]:
        """Draw the initial latents of each clip from its seed."""
        shape = (self.frames(duration), self.config.audio_acoustic_hidden_dim)
        return seeded_noise(clips, shape).to(self.device, self.pipeline.transformer.dtype)

    def label_call(self, inputs: dict[str, Any], n_clips: int) -> CallLabel:
        """Label a call by its inputs: step and sigma from its timestep, passes from its conditioning.

        A row is the null pass if all its conditioning tokens equal the learned null embedding.
        """
        timestep, states = inputs["timestep"], inputs["encoder_hidden_states"]
        schedule = self.pipeline.scheduler.timesteps
        step = self.step_of(timestep.flatten()[0], schedule)
        null = self.pipeline.condition_encoder.null_condition_emb.to(states)
        is_null = (states == null).flatten(1).all(dim=1).tolist()
        return CallLabel(
            step=step,
            sigma=float(schedule[step]),
            clips=tuple(row % n_clips for row in range(len(states))),
            passes=tuple("null" if row_is_null else "cond" for row_is_null in is_null),
        )

    @torch.no_grad()
    def decode(
        self,
        latents: Float[torch.Tensor, "clip frame latent_channel"],
        duration: float | None = None,  # noqa: ARG002 - the latents are the clip's
    ) -> Float[torch.Tensor, "clip channel sample"]:
        """Decode latents to audio at `sample_rate` with the VAE, normalised to peaks of -1 dBFS, as the pipeline does.

        Clips are decoded one at a time: this bounds the memory of a large sweep, and on a CPU it is three times as fast
        as eight at once, whose intermediate values need newly mapped memory in every layer.
        """
        decoded = [self.pipeline.vae.decode(rows.transpose(1, 2)).sample.float() for rows in latents.split(1)]
        audio = torch.cat(decoded)
        audio = audio / audio.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1.0)
        return audio * (PEAK / audio.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-6))

    def pipeline_arguments(self, clips: Sequence[Clip], settings: GenerationSettings) -> dict[str, Any]:
        return {
            "prompt": [clip.prompt for clip in clips],
            "lyrics": [clip.lyrics for clip in clips],
            "audio_duration": settings.duration,
            "num_inference_steps": settings.num_steps,
            "guidance_scale": settings.guidance_scale,
            **options_of(AceStepOptions, settings).model_dump(),
            "latents": self.noise(clips, settings.duration),
            "output_type": "latent",
        }

    def output_latents(self, output: Any) -> Float[torch.Tensor, "clip frame latent_channel"]:
        return output.audios

    def encode(self, clips: Sequence[Clip], access: PipelineCall, sharing: bool) -> None:
        """Record which tokens are padding; if conditionings are shared, encode each distinct one once."""
        assert isinstance(access, CallOfAceStep)
        if sharing:
            self._encode_once(clips)
        access.real_tokens = self.nn.condition_encoder.output[1].bool()

    def _encode_once(self, clips: Sequence[Clip]) -> None:
        """Inside a trace, encode each distinct conditioning once and distribute them to the clips."""
        texts = [(clip.prompt, clip.lyrics) for clip in clips]
        first = [row for row, text in enumerate(texts) if text not in texts[:row]]
        own = [texts.index(text) for text in texts]
        places = [first.index(row) for row in own]
        args, inputs = self.nn.text_encoder.inputs
        self.nn.text_encoder.inputs = (args, select_rows(inputs, first, len(clips)))
        encoded = self.nn.text_encoder.output
        encoded.last_hidden_state = encoded.last_hidden_state[places]
        args, inputs = self.nn.condition_encoder.inputs
        order = {"refer_audio_order_mask": inputs["refer_audio_order_mask"][: len(first)]}
        self.nn.condition_encoder.inputs = (args, {**select_rows(inputs, first, len(clips)), **order})
        states, mask = self.nn.condition_encoder.output
        self.nn.condition_encoder.output = (states[places], mask[places])
