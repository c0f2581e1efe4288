"""Adapter for AudioLDM 2 (`diffusers.AudioLDM2Pipeline`) on nnsight's `DiffusionModel`."""

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import AudioLDM2Pipeline, DDIMScheduler
from diffusers.utils import logging
from jaxtyping import Bool, Float, Int
from transformers import GPT2LMHeadModel, GPT2Model

from cache.errors import UserError
from workbench.engine.rows import CallRows
from workbench.engine.runs import CallLabel, Clip
from workbench.engine.segments import Conditioning, Span, words_at_tokens
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.models.noise import seeded_noise
from workbench.models.options import Options, options_of
from workbench.models.pipeline_call import PipelineCall

HIDDEN = -10000.0  # the network adds this to attention scores of hidden tokens


@dataclass(frozen=True)
class Place:
    """A block of the UNet: the paper's name for it, its level (number of downsamplings), and what it reads."""

    name: str
    level: int
    reads_text: bool
    block: Any


def conditioned_blocks(unet: Any) -> Iterator[Place]:
    """The transformer blocks of a UNet whose `attn2` reads a conditioning, in order of computation.

    The names join the columns block and attn of TADA's published table: `up1tf5attn0` is
    `up_blocks.1.attentions.5.transformer_blocks.0`. `unet` is the module or its envoy.
    """
    level = 0
    for number, stage in enumerate(unet.down_blocks):
        yield from _conditioned(stage, f"down{number}", level)
        level += stage.downsamplers is not None
    yield from _conditioned(unet.mid_block, "mid", level)
    for number, stage in enumerate(unet.up_blocks):
        yield from _conditioned(stage, f"up{number}", level)
        level -= stage.upsamplers is not None


def _conditioned(stage: Any, name: str, level: int) -> Iterator[Place]:
    # A stage repeats a sequence of transformers, each for one width of conditioning or none (None). Of those with a
    # conditioning, the first two in the sequence read the language model's states, the others T5's.
    widths = getattr(stage, "cross_attention_dim", ())
    for number, transformer in enumerate(stage.attentions) if any(widths) else ():
        place = number % len(widths)
        if widths[place] is not None:
            for attn, block in enumerate(transformer.transformer_blocks):
                yield Place(f"{name}tf{number}attn{attn}", level, place > 1, block)


class AudioLDM2Options(Options):
    """Options of AudioLDM 2."""

    architecture = "AudioLDM 2"

    negative_prompt: str = ""


class CallOfAudioLDM2(PipelineCall):
    """`CallAccess` of an `AudioLDM2UNet2DConditionModel` envoy inside a running nnsight trace.

    The conditioning is the `n_generated` states of the language model followed by those of T5; a block reads one of
    the two.
    """

    part_names: ClassVar[dict[str, str]] = {"self_attn": "attn1", "cross_attn": "attn2", "mlp": "ff"}
    argument_names: ClassVar[tuple[str, ...]] = ("sample", "timestep")
    latents: ClassVar[str] = "sample"

    def __init__(self, network: Any, n_generated: int) -> None:
        self.places = list(conditioned_blocks(network))
        self.n_generated = n_generated
        super().__init__(network)
        self.block_names = tuple(place.name for place in self.places)

    def find_blocks(self, network: Any) -> Any:  # noqa: ARG002 - found already
        """Return the transformer blocks that read the conditioning."""
        return [place.block for place in self.places]

    def as_latents(self, output: torch.Tensor) -> Float[torch.Tensor, "row frame latent_channel"]:
        """Return the network's output with latent time as its second axis, channels and frequencies as its last."""
        return frames_first(output)

    def reads(self, block: int) -> slice:
        """Return which conditioning tokens the block's cross-attention reads."""
        generated = slice(0, self.n_generated)
        return slice(self.n_generated, None) if self.places[block].reads_text else generated

    def row_mask(self, rows: CallRows) -> Bool[torch.Tensor, "row token"] | None:
        """Return which conditioning tokens are visible to each readable row; None without padding."""
        text: torch.Tensor = self.arguments()["encoder_attention_mask_1"][list(rows.readable)].bool()
        if bool(text.all()):
            return None
        return torch.cat([text.new_ones(len(text), self.n_generated), text], dim=1)

    def write_mask(self, block: int, mask: Bool[torch.Tensor, "row token"]) -> None:
        """Hide the conditioning tokens where `mask` is False from each row of the block's cross-attention."""
        if not self.places[block].reads_text:
            return  # the language model generates no padding, so there is no mask, as in the pipeline
        attention = self._part(block, "cross_attn")
        args, given = attention.inputs
        bias = (1 - mask.to(given["encoder_hidden_states"].dtype)) * HIDDEN
        attention.inputs = (args, {**given, self.mask_name: bias[:, None, :]})


class AudioLDM2(AudioDiffusionModel):
    """AudioLDM 2 (base, music, large) as an `AudioDiffusionModel`.

    The pipeline runs unchanged. Each distinct prompt is encoded alone, as the pipeline does for a single clip, and
    padded afterwards, so that a batch row equals the same clip generated alone, up to rounding: in a batch the pipeline
    pads prompts before its language model, which counts the padding. Blocks work at several resolutions; tokens run
    over time and, within a time step, over frequency bands.
    """

    pipeline_class = AudioLDM2Pipeline
    call_class = CallOfAudioLDM2
    options_class = AudioLDM2Options
    one_stream: ClassVar[bool] = False
    nonlinear_text = "it reads what the language model generates"

    def __init__(self, name: str, source: str, device: str = "cpu", dtype: str = "float32") -> None:
        with _loading():
            super().__init__(name, source, device, dtype)
        if not isinstance(self.pipeline.scheduler, DDIMScheduler):
            kind = type(self.pipeline.scheduler).__name__
            raise UserError(f"AudioLDM 2 must have the DDIMScheduler, as published; {source} has a {kind}.")
        language = self.pipeline.language_model
        if isinstance(language, GPT2Model):
            # The published folders have the bare model, which has no generation methods in transformers 5.
            with torch.device("meta"):
                generating = GPT2LMHeadModel(language.config)
            generating.transformer = language
            generating.lm_head = torch.nn.Identity()  # it generates states, not words
            self.pipeline.register_modules(language_model=generating.eval())

    def call_access(self, network: Any) -> PipelineCall:
        """Return access to a call of the UNet, given its envoy, or the module if only sizes are needed."""
        return CallOfAudioLDM2(network, self._n_generated)

    @property
    def _n_generated(self) -> int:
        return int(self.pipeline.language_model.config.max_new_tokens)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The UNet."""
        return self.pipeline.unet

    def traced_denoiser(self) -> Any:
        return self.nn.unet

    # Sizes

    @property
    def sample_rate(self) -> int:
        """Samples per second of the decoded audio."""
        return int(self.pipeline.vocoder.config.sampling_rate)

    @property
    def mel_seconds(self) -> float:
        """Seconds per frame of the spectrogram that the vocoder turns into audio."""
        return math.prod(self.pipeline.vocoder.config.upsample_rates) / self.sample_rate

    @property
    def bands(self) -> int:
        """Frequency bands of a latent frame."""
        return int(self.pipeline.vocoder.config.model_in_dim // self.pipeline.vae_scale_factor)

    def frames(self, duration: float) -> int:
        """Latent frames of a clip of `duration` seconds."""
        return math.ceil(int(duration / self.mel_seconds) / self.pipeline.vae_scale_factor)

    def seconds(self, duration: float) -> float:
        """Seconds of audio of a clip of `duration` seconds: less if it ends within a frame of the spectrogram."""
        return min(duration, self.frames(duration) * self.pipeline.vae_scale_factor * self.mel_seconds)

    def _grid(self, block: int, frames: int) -> tuple[int, int]:
        """Return the time steps and frequency bands of a block; each downsampling rounds up."""
        halved = 2 ** self._places[block].level
        return math.ceil(frames / halved), math.ceil(self.bands / halved)

    @property
    def _places(self) -> list[Place]:
        assert isinstance(self._modules, CallOfAudioLDM2)
        return self._modules.places

    @property
    def _finest(self) -> Site:
        finest = min(range(self.n_blocks), key=lambda block: self._places[block].level)
        return Site(finest, "block")

    def tokens(self, duration: float) -> int:
        """Tokens of a clip of `duration` seconds in the blocks with the most: time steps times frequency bands."""
        return self.tokens_at(self._finest, duration)

    @property
    def token_seconds(self) -> float:
        """Seconds of music per token in the blocks with the most tokens."""
        return self.token_seconds_at(self._finest)

    def tokens_at(self, site: Site, duration: float) -> int:
        """Tokens of a site: time steps times frequency bands, time first."""
        return math.prod(self._grid(site.block, self.frames(duration)))

    def token_seconds_at(self, site: Site) -> float:
        """Seconds of music per token of a site: those of a time step divided by its number of frequency bands."""
        _, bands = self._grid(site.block, 1)
        frame_seconds = self.mel_seconds * self.pipeline.vae_scale_factor
        return frame_seconds * 2 ** self._places[site.block].level / bands

    # Settings and labels

    def check_settings(self, settings: GenerationSettings) -> None:
        """Raise UserError for options that this model does not have, for clips too short and for too many steps."""
        super().check_settings(settings)
        shortest = self.mel_seconds * self.pipeline.vae_scale_factor
        if settings.duration < shortest:
            raise UserError(
                f"The duration must be at least {shortest:g} s for AudioLDM 2; got {settings.duration:g} s."
            )
        if settings.num_steps > self.pipeline.scheduler.config.num_train_timesteps:
            raise UserError(
                f"The number of steps must be at most {self.pipeline.scheduler.config.num_train_timesteps} for "
                f"AudioLDM 2; got {settings.num_steps}."
            )

    def passes(self, settings: GenerationSettings) -> tuple[str, ...]:
        """("cond", "null") under guidance, else ("cond",)."""
        return ("cond", "null") if settings.guidance_scale > 1 else ("cond",)

    def sigmas(self, settings: GenerationSettings) -> list[float]:
        """Sigma of each step: the standard deviation of the noise in the latents, sqrt(1 - alpha_bar).

        The latents are sqrt(alpha_bar) x + sigma noise (Ho et al., arXiv 2006.11239), so sigma is in [0, 1].
        """
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(settings.num_steps)
        return [self._sigma(int(timestep)) for timestep in scheduler.timesteps]

    def step_sizes(self, settings: GenerationSettings) -> list[float]:
        """Change of the latents in each step per change of the network's output, up to a common factor.

        In a DDIM step (Song et al., arXiv 2010.02502), latents / sqrt(alpha_bar) change by the predicted noise times
        the decrease of sigma / sqrt(alpha_bar).
        """
        last = float(self.pipeline.scheduler.final_alpha_cumprod)
        levels = [sigma / math.sqrt(1 - sigma**2) for sigma in self.sigmas(settings)]
        levels.append(math.sqrt((1 - last) / last))
        return [level - following for level, following in itertools.pairwise(levels)]

    def _sigma(self, timestep: int) -> float:
        return math.sqrt(1 - float(self.pipeline.scheduler.alphas_cumprod[timestep]))

    def label_call(self, inputs: dict[str, Any], n_clips: int) -> CallLabel:
        """Label a call by its inputs: step and sigma from its timestep, passes from its number of rows.

        Under guidance a call has two rows per clip, all null rows first.
        """
        n_rows = len(inputs["sample"])
        timestep = inputs["timestep"].flatten()[0]
        passes = ("null", "cond") if n_rows == 2 * n_clips else ("cond",)
        return CallLabel(
            step=self.step_of(timestep, self.pipeline.scheduler.timesteps),
            sigma=self._sigma(int(timestep)),
            clips=tuple(range(n_clips)) * len(passes),
            passes=tuple(name for name in passes for _ in range(n_clips)),
        )

    # Conditioning

    def segments(self, clip: Clip, settings: GenerationSettings) -> dict[str, Span]:  # noqa: ARG002
        """Spans (first, last + 1) of a clip's conditioning tokens: generated (by the language model), text (T5)."""
        first = self._n_generated
        return {"generated": (0, first), "text": (first, first + len(self._tokenised(clip.prompt).input_ids))}

    def encoded_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:  # noqa: ARG002
        """Return the tokens that CLAP and T5 read from a clip's prompt."""
        clap = self.pipeline.tokenizer
        clap_tokens = clap(clip.prompt, truncation=True, max_length=clap.model_max_length).input_ids
        return tuple(clap_tokens), tuple(self._tokenised(clip.prompt).input_ids)

    def placed_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:
        """Return the tokens that T5 reads from a clip's prompt; CLAP makes one state of all of its own."""
        return self.encoded_tokens(clip, settings)[1:]

    def conditioning(self, clip: Clip, settings: GenerationSettings) -> Conditioning:
        """Return the spans of the segments of a clip's conditioning and of the words of its prompt."""
        offsets = self._tokenised(clip.prompt).offset_mapping
        words = words_at_tokens(clip.prompt, 0, offsets, self._n_generated)
        return Conditioning(self.segments(clip, settings), words)

    def _text_projections(self, block: int) -> tuple[torch.nn.Linear, ...]:
        return () if self._places[block].reads_text else super()._text_projections(block)

    def _tokenised(self, prompt: str) -> Any:
        tokenizer = self.pipeline.tokenizer_2
        return tokenizer(
            prompt, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True
        )

    def _encoded(self, prompts: Sequence[str], settings: GenerationSettings) -> dict[str, Any]:
        """Return the pipeline's conditioning arguments, with each distinct prompt encoded alone."""
        guided = settings.guidance_scale > 1
        negative = options_of(AudioLDM2Options, settings).negative_prompt
        known: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        for prompt in prompts:
            if prompt not in known:
                known[prompt] = self.pipeline.encode_prompt(
                    [prompt], self.device, 1, guided, negative_prompt=[negative]
                )
        length = max(text.shape[1] for text, _, _ in known.values())
        padded = {prompt: _padded(*encoded, length) for prompt, encoded in known.items()}
        text, mask, generated = (torch.stack(parts) for parts in zip(*map(padded.get, prompts), strict=True))
        null = {
            "negative_prompt_embeds": text[:, 0],
            "negative_attention_mask": mask[:, 0],
            "negative_generated_prompt_embeds": generated[:, 0],
        }
        cond = {
            "prompt_embeds": text[:, -1],
            "attention_mask": mask[:, -1],
            "generated_prompt_embeds": generated[:, -1],
        }
        return {**cond, **(null if guided else {})}

    # Generation

    def noise(
        self, clips: Sequence[Clip], duration: float
    ) -> Float[torch.Tensor, "clip latent_channel frame band"]:
        """Draw the initial latents of each clip from its seed, in the pipeline's layout."""
        shape = (int(self.config.in_channels), self.frames(duration), self.bands)
        return seeded_noise(clips, shape).to(self.device, self.pipeline.unet.dtype)

    def pipeline_arguments(self, clips: Sequence[Clip], settings: GenerationSettings) -> dict[str, Any]:
        return {
            **self._encoded([clip.prompt for clip in clips], settings),
            "audio_length_in_s": settings.duration,
            "num_inference_steps": settings.num_steps,
            "guidance_scale": settings.guidance_scale,
            "latents": self.noise(clips, settings.duration),
            "output_type": "latent",
        }

    def output_latents(self, output: Any) -> Float[torch.Tensor, "clip frame latent_channel"]:
        return frames_first(output.audios)

    @torch.no_grad()
    def decode(
        self, latents: Float[torch.Tensor, "clip frame latent_channel"], duration: float | None = None
    ) -> Float[torch.Tensor, "clip channel sample"]:
        """Decode latents to audio in [-1, 1] at `sample_rate`: the VAE gives a spectrogram, the vocoder its audio.

        The audio is cut to `duration` seconds, if given. Clips are decoded one at a time, which bounds the memory of a
        large sweep.
        """
        vae = self.pipeline.vae
        audio = []
        for row in latents.split(1):
            scaled = row.unflatten(2, (-1, self.bands)).transpose(1, 2) / vae.config.scaling_factor
            audio.append(self.pipeline.mel_spectrogram_to_waveform(vae.decode(scaled).sample))
        end = None if duration is None else int(duration * self.sample_rate)
        return torch.stack(audio)[:, :, :end]


@contextmanager
def _loading() -> Iterator[None]:
    """Silence warnings that users cannot act on."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # diffusers warns that the class of the language model is not the expected one
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", ".*has a submodule named 'output'", UserWarning
            )  # from nnsight, about CLAP
            yield
    finally:
        logging.set_verbosity(level)


def frames_first(
    latents: Float[torch.Tensor, "row channel frame band"],
) -> Float[torch.Tensor, "row frame latent_channel"]:
    """Return the UNet's latents with time as their second axis, channels and frequency bands as their last."""
    return latents.transpose(1, 2).flatten(2)


def _padded(
    text: Float[torch.Tensor, "pass token text_channel"],
    mask: Int[torch.Tensor, "pass token"],
    generated: Float[torch.Tensor, "pass generated_token generated_channel"],
    length: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad the text of an encoded prompt to `length` tokens, which are masked."""
    missing = length - text.shape[1]
    return (
        torch.nn.functional.pad(text, (0, 0, 0, missing)),
        torch.nn.functional.pad(mask, (0, missing)),
        generated,
    )
