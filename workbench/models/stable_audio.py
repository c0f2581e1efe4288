"""Adapter for Stable Audio Open (`diffusers.StableAudioPipeline`) on nnsight's `DiffusionModel`."""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableAudioPipeline
from jaxtyping import Float

import workbench.plain_nnsight  # noqa: F401 - lets diffusers import torchsde, for the sampler
from cache.errors import UserError
from workbench.engine.batch import Row
from workbench.engine.rows import CallRows
from workbench.engine.runs import CallLabel, Clip
from workbench.engine.segments import Conditioning, Span, words_at_tokens
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.models.options import Options, options_of
from workbench.models.pipeline_call import PipelineCall

GLOBAL_TOKENS = 1  # one token with the noise level and the clip's timing, before those of latent time
TIMING_TOKENS = 2  # start and end of the clip in seconds


class StableAudioOptions(Options):
    """Options of Stable Audio Open."""

    architecture = "Stable Audio Open"

    negative_prompt: str | None = None


class CallOfStableAudio(PipelineCall):
    """`CallAccess` of a `StableAudioDiTModel` envoy inside a running nnsight trace."""

    part_names: ClassVar[dict[str, str]] = {"self_attn": "attn1", "cross_attn": "attn2", "mlp": "ff"}
    argument_names: ClassVar[tuple[str, ...]] = ("hidden_states", "timestep")

    def find_blocks(self, network: Any) -> Any:
        """The transformer's blocks."""
        return network.transformer_blocks

    def inputs(self, rows: CallRows, clips: Sequence[Row]) -> dict[str, Any]:
        """Return the call's arguments for all rows, with the shared timestep repeated for each row."""
        given = super().inputs(rows, clips)
        return {**given, "timestep": given["timestep"].expand(len(rows.take))}

    def as_latents(self, output: torch.Tensor) -> Float[torch.Tensor, "row frame latent_channel"]:
        """Return the network's output with latent time as its second axis."""
        return output.transpose(1, 2)

    def skip_conditioning(self, n_rows: int) -> None:
        """Skip projecting the conditioning: all values that depend on it are cached."""
        states = self.arguments()["encoder_hidden_states"]
        self.network.cross_attention_proj.skip(states.new_zeros(()).expand(n_rows, states.shape[1], 1))


class StableAudioOpen(AudioDiffusionModel):
    """Stable Audio Open 1.0 as an `AudioDiffusionModel`.

    The pipeline runs unchanged. It always generates the whole window that the network was trained on (47.6 s) and cuts
    the audio to the clip's duration, so every clip has the window's tokens, whatever its duration. Token 0 is the
    global token; token i is latent frame i - 1. Prompts are padded with zeros to a fixed length, so a row does not
    depend on its batch. The sampler draws noise at every step, for each row from the clip's own seed.
    """

    pipeline_class = StableAudioPipeline
    call_class = CallOfStableAudio
    options_class = StableAudioOptions
    nonlinear_text = "they pass a SiLU in cross_attention_proj"

    def __init__(self, name: str, source: str, device: str = "cpu", dtype: str = "float32") -> None:
        super().__init__(name, source, device, dtype)
        # torchsde warns when a sampler evaluates the noise at the ends of its schedule; users cannot act on it.
        warnings.filterwarnings("ignore", "Should have t[ab][<>]=", UserWarning)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the decoded audio."""
        return int(self.pipeline.vae.config.sampling_rate)

    @property
    def token_seconds(self) -> float:
        """Seconds of music per token."""
        return self.pipeline.vae.hop_length / self.sample_rate

    @property
    def window_seconds(self) -> float:
        """Seconds that are always generated, whatever the clip's duration; no clip can be longer."""
        return int(self.config.sample_size) * self.token_seconds

    def tokens(self, duration: float) -> int:  # noqa: ARG002 - the window's, whatever the clip's duration
        """Tokens of a clip: the global token, then one per latent frame."""
        return GLOBAL_TOKENS + int(self.config.sample_size)

    def passes(self, settings: GenerationSettings) -> tuple[str, ...]:
        """("cond", "null") under guidance, else ("cond",)."""
        return ("cond", "null") if settings.guidance_scale > 1 else ("cond",)

    def sigmas(self, settings: GenerationSettings) -> list[float]:
        """Sigma of each step: standard deviation of the noise, from 500 down to 0.3 (that of the data is about 1)."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(settings.num_steps)
        return [float(sigma) for sigma in scheduler.sigmas[: settings.num_steps]]

    def step_sizes(self, settings: GenerationSettings) -> list[float]:
        """Change of the latents in each step per change of the network's output, up to a common factor.

        For the solver's first-order step (SDE-DPM-Solver++, Lu et al. 2022): a change v of the output changes the
        predicted data by -v σ / sqrt(σ² + 1), and a step from σ to σ' changes the latents by 1 - (σ'/σ)² of that.
        """
        sigmas = [*self.sigmas(settings), 0.0]
        return [
            (1 - (following / sigma) ** 2) * sigma / (sigma**2 + 1) ** 0.5
            for sigma, following in itertools.pairwise(sigmas)
        ]

    def segments(self, clip: Clip, settings: GenerationSettings) -> dict[str, Span]:  # noqa: ARG002 - all clips' alike
        """Spans (first, last + 1) of the conditioning tokens: text with its padding, and timing (start and end)."""
        length = int(self.pipeline.tokenizer.model_max_length)
        return {"text": (0, length), "timing": (length, length + TIMING_TOKENS)}

    def conditioning(self, clip: Clip, settings: GenerationSettings) -> Conditioning:
        """Return the spans of the segments of a clip's conditioning and of the words of its prompt."""
        offsets = self._tokenised(clip.prompt).offset_mapping
        return Conditioning(self.segments(clip, settings), words_at_tokens(clip.prompt, 0, offsets, 0))

    def encoded_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:  # noqa: ARG002
        """Return the tokens that T5 reads from a clip's prompt."""
        return (tuple(self._tokenised(clip.prompt).input_ids),)

    def _tokenised(self, prompt: str) -> Any:
        tokenizer = self.pipeline.tokenizer
        return tokenizer(
            prompt, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True
        )

    def label_call(self, inputs: dict[str, Any], n_clips: int) -> CallLabel:
        """Label a call by its inputs: step and sigma from its timestep, passes from its number of rows.

        Under guidance the call has two rows per clip, all null rows first.
        """
        scheduler = self.pipeline.scheduler
        step = self.step_of(inputs["timestep"].flatten()[0], scheduler.timesteps)
        n_rows = len(inputs["hidden_states"])
        passes = ("null", "cond") if n_rows == 2 * n_clips else ("cond",)
        return CallLabel(
            step=step,
            sigma=float(scheduler.sigmas[step]),
            clips=tuple(row % n_clips for row in range(n_rows)),
            passes=tuple(name for name in passes for _ in range(n_clips)),
        )

    @torch.no_grad()
    def decode(
        self, latents: Float[torch.Tensor, "clip frame latent_channel"], duration: float | None = None
    ) -> Float[torch.Tensor, "clip channel sample"]:
        """Decode latents to audio at `sample_rate` with the VAE, cut to `duration` seconds (None: the whole window).

        As in the pipeline, samples beyond full scale are clipped. Clips are decoded one at a time, which bounds the
        memory.
        """
        decoded = [self.pipeline.vae.decode(rows.transpose(1, 2)).sample.float() for rows in latents.split(1)]
        end = None if duration is None else int(duration * self.sample_rate)
        return torch.cat(decoded)[:, :, :end].clamp(-1.0, 1.0)

    def check_settings(self, settings: GenerationSettings) -> None:
        """Raise UserError for a clip longer than the window, and for options that this model does not have."""
        super().check_settings(settings)
        longest = min(self.window_seconds, float(self.pipeline.projection_model.config.max_value))
        if settings.duration > longest:
            raise UserError(
                f"The duration must be at most {longest:.2f} s for Stable Audio Open; got {settings.duration:g} s."
            )

    def pipeline_arguments(self, clips: Sequence[Clip], settings: GenerationSettings) -> dict[str, Any]:
        negative = options_of(StableAudioOptions, settings).negative_prompt
        shape = (int(self.config.in_channels), int(self.config.sample_size))
        # Depending on the scheduler, the sampler continues the generators of the initial noise, or derives noise from
        # their seeds.
        generators = [torch.Generator().manual_seed(clip.seed) for clip in clips]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return {
            "prompt": [clip.prompt for clip in clips],
            "negative_prompt": None if negative is None else [negative] * len(clips),
            "audio_end_in_s": settings.duration,
            "num_inference_steps": settings.num_steps,
            "guidance_scale": settings.guidance_scale,
            "latents": noise.to(self.device, self.pipeline.transformer.dtype),
            "generator": generators,
            "output_type": "latent",
        }

    def output_latents(self, output: Any) -> Float[torch.Tensor, "clip frame latent_channel"]:
        return output.audios.transpose(1, 2)
