"""The pipeline of ACE-Step v1 3.5B, from a prompt and lyrics to 48 kHz stereo."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import AudioPipelineOutput, AutoencoderDC, DiffusionPipeline
from huggingface_hub import snapshot_download
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from cache.errors import UserError
from workbench.models.ace_step_v1.audio import decode_latents
from workbench.models.ace_step_v1.guidance import Momentum, apg, cfg, cfg_star, double_guidance
from workbench.models.ace_step_v1.lyrics import LyricTokenizer
from workbench.models.ace_step_v1.schedulers import (
    AceStepV1EulerScheduler,
    AceStepV1HeunScheduler,
    AceStepV1PingPongScheduler,
    OmegaReduction,
)
from workbench.models.ace_step_v1.transformer import AceStepV1Transformer
from workbench.models.ace_step_v1.vocoder import AceStepV1Vocoder

SAMPLE_RATE = 48_000
FRAMES_PER_SECOND = 44_100 / 512 / 8
"""Latent frames per second: at 44.1 kHz, a mel frame is 512 samples and a latent frame eight mel frames."""
MAX_TEXT_TOKENS = 256
SCHEDULERS = {
    "euler": AceStepV1EulerScheduler,
    "heun": AceStepV1HeunScheduler,
    "pingpong": AceStepV1PingPongScheduler,
}
FOLDERS = {
    "transformer": "ace_step_transformer",
    "dcae": "music_dcae_f8c8",
    "vocoder": "music_vocoder",
    "text_encoder": "umt5-base",
}
WEAK_TEXT_LAYERS = range(8, 10)
"""Layers of the text encoder whose queries are weakened for the null pass (entropy rectifying guidance)."""
WEAKENED = 0.01

CfgType = Literal["apg", "cfg", "cfg_star"]


@dataclass(frozen=True)
class Guidance:
    """Guidance settings: how a step's velocities are combined; the defaults are the published pipeline's.

    A `scale` of 1 (or 0) is no guidance. Guidance acts in the middle fraction `interval` of the steps (1: all steps).
    Over the interval the scale falls towards `min_scale`, if `interval_decay` is above 0, and reaches it at 1. If
    `text_scale` and `lyric_scale` are both above 1, a third pass has the text without the lyrics, and these two scales
    act on their own parts instead of `scale`. The three `erg_*` switches (entropy rectifying guidance) weaken attention
    in the null pass instead of removing its conditioning: in the text encoder, in the lyric encoder (without which
    `erg_tag` has no effect), and in the denoiser.

    Raises:
        UserError: if `cfg_type` is unknown, or `interval` is not in 0 to 1.
    """

    cfg_type: str = "apg"
    scale: float = 15.0
    interval: float = 0.5
    interval_decay: float = 0.0
    min_scale: float = 3.0
    text_scale: float = 0.0
    lyric_scale: float = 0.0
    erg_tag: bool = True
    erg_lyric: bool = True
    erg_diffusion: bool = True

    def __post_init__(self) -> None:
        if self.cfg_type not in get_args(CfgType):
            raise UserError(
                f"Unknown guidance '{self.cfg_type}'. cfg_type must be one of {', '.join(get_args(CfgType))}."
            )
        if not 0 <= self.interval <= 1:
            raise UserError(
                f"The guidance interval is a fraction of the steps, from 0 to 1; got {self.interval}."
            )

    @property
    def passes(self) -> tuple[str, ...]:
        """Passes of a guided step, in the order of its rows."""
        if self.scale in (0.0, 1.0):
            return ("cond",)
        return ("cond", "text", "null") if self.doubled else ("cond", "null")

    @property
    def doubled(self) -> bool:
        """Whether text and lyrics have separate guidance scales."""
        return self.text_scale > 1 and self.lyric_scale > 1

    def steps(self, num_steps: int) -> range:
        """Return the steps that are guided."""
        return range(int(num_steps * ((1 - self.interval) / 2)), int(num_steps * (self.interval / 2 + 0.5)))

    def passes_at(self, step: int, num_steps: int) -> tuple[str, ...]:
        """Return the passes of a step; outside the interval there is only one."""
        return self.passes if step in self.steps(num_steps) else ("cond",)

    def scale_at(self, step: int, num_steps: int) -> float:
        """Return the scale of a guided step."""
        guided = self.steps(num_steps)
        progress = (step - guided.start) / max(len(guided) - 1, 1)
        return self.scale - (self.scale - self.min_scale) * progress * self.interval_decay

    def combine(
        self,
        velocities: dict[str, Float[Tensor, "row channel band frame"]],
        step: int,
        num_steps: int,
        momentum: Momentum,
    ) -> Float[Tensor, "row channel band frame"]:
        """Combine the velocities of a step's passes."""
        cond, null = velocities["cond"], velocities.get("null")
        if null is None:
            return cond
        if "text" in velocities:
            return double_guidance(cond, velocities["text"], null, self.text_scale, self.lyric_scale)
        scale = self.scale_at(step, num_steps)
        if self.cfg_type == "apg":
            return apg(cond, null, scale, momentum)
        if self.cfg_type == "cfg":
            return cfg(cond, null, scale)
        return cfg_star(cond, null, scale, step)


@dataclass(frozen=True)
class Encoded:
    """Conditioning of a batch by pass, in the order speaker, text, lyrics, each padded to the longest in the batch.

    `positions` count only a row's real tokens, so that a row does not depend on the padding that others need.
    """

    states: dict[str, Float[Tensor, "row token dim"]]
    mask: Bool[Tensor, "row token"]
    positions: Int[Tensor, "row token"]


class AceStepV1Pipeline(DiffusionPipeline):
    """Generate music from text and lyrics with ACE-Step v1 3.5B (Gong et al. 2025), loaded from the published layout.

    The denoiser is called once per step (Heun: twice), through the transformer's `forward`, with all passes of all
    clips as rows, cond first. Rows do not influence each other (except with `omega_reduction="batch"`, the published
    mean), so a clip is the same in a batch as alone, up to rounding.
    """

    model_cpu_offload_seq = "text_encoder->transformer->dcae->vocoder"

    @staticmethod
    def after_guidance(
        velocity: Float[Tensor, "row channel band frame"],
    ) -> Float[Tensor, "row channel band frame"]:
        """Return what the scheduler follows, given the guided velocity; may be replaced in an instance."""
        return velocity

    def __init__(
        self,
        transformer: AceStepV1Transformer,
        text_encoder: UMT5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        dcae: AutoencoderDC,
        vocoder: AceStepV1Vocoder,
        lyric_tokenizer: LyricTokenizer | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            dcae=dcae,
            vocoder=vocoder,
        )
        self.scheduler = AceStepV1EulerScheduler()
        self.lyric_tokenizer = lyric_tokenizer or LyricTokenizer(None)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        lyric_vocabulary: str | Path | None = None,
    ) -> "AceStepV1Pipeline":
        """Load the published layout from a folder or a hub id (ACE-Step/ACE-Step-v1-3.5B).

        `lyric_vocabulary` is the location of the lyric vocabulary, if it is not in the folder (see
        `LyricTokenizer.load`); it is read when a clip has lyrics.

        Raises:
            UserError: if a folder of the layout is missing.
        """
        folder = published_folder(source, revision)
        text_folder = folder / FOLDERS["text_encoder"]
        return cls(
            transformer=AceStepV1Transformer.from_pretrained(
                folder / FOLDERS["transformer"], torch_dtype=dtype
            ),
            text_encoder=UMT5EncoderModel.from_pretrained(text_folder, dtype=dtype),
            tokenizer=AutoTokenizer.from_pretrained(text_folder),
            dcae=AutoencoderDC.from_pretrained(folder / FOLDERS["dcae"], torch_dtype=dtype),
            vocoder=AceStepV1Vocoder.from_pretrained(folder / FOLDERS["vocoder"], torch_dtype=dtype),
            lyric_tokenizer=LyricTokenizer.load(lyric_vocabulary, folder),
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the published layout, without the lyric vocabulary."""
        for name, subfolder in FOLDERS.items():
            getattr(self, name).save_pretrained(Path(folder) / subfolder)
        self.tokenizer.save_pretrained(Path(folder) / FOLDERS["text_encoder"])

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        lyrics: str | Sequence[str] = "",
        audio_duration: float = 60.0,
        num_inference_steps: int = 60,
        seeds: int | Sequence[int] = 0,
        scheduler: str = "euler",
        shift: float = 3.0,
        omega: float = 10.0,
        omega_reduction: OmegaReduction = "sample",
        guidance: Guidance | None = None,
        output_type: Literal["audio", "latent"] = "audio",
    ) -> AudioPipelineOutput:
        """Generate a clip for each prompt.

        Args:
            prompt: descriptions of the music, as sentences or tags.
            lyrics: one for each prompt, or one for all; "" and "[inst]" are instrumental.
            audio_duration: seconds of every clip (one for the batch, because the denoiser normalises over time).
            num_inference_steps: steps of the schedule.
            seeds: seed of each clip's noise, or one for all; noise is drawn on the CPU, so it is the same on all
                devices.
            scheduler: one of `SCHEDULERS`. Heun calls the denoiser twice per step, and the guidance interval then
                counts calls (in the published code it counts steps, so that Heun runs end unguided).
            shift: bends the schedule towards noise.
            omega: strength of the mean shift in every step.
            omega_reduction: mean over each clip ("sample") or, as published, over the whole batch ("batch"), so that
                clips depend on each other.
            guidance: how the velocities of the passes are combined.
            output_type: audio (clip, channel, sample) at 48 kHz, or latents (clip, 8, 16, frame).

        Raises:
            UserError: if the batch is empty, lists differ in length, the duration is shorter than a frame, or the
                scheduler is unknown.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        texts = list(zip(prompts, _for_each(lyrics, prompts, "lyrics"), strict=True))
        generators = [torch.Generator().manual_seed(int(seed)) for seed in _for_each(seeds, prompts, "seeds")]
        guidance = guidance or Guidance()
        device, dtype = self._execution_device, self.transformer.dtype
        encoded = self._encode(texts, guidance)
        latents = _noise(self._latent_shape(audio_duration), generators).to(device, dtype)
        if scheduler not in SCHEDULERS:
            raise UserError(f"Unknown scheduler '{scheduler}'. Use one of {', '.join(SCHEDULERS)}.")
        self.scheduler = SCHEDULERS[scheduler](shift=shift)
        self.scheduler.set_timesteps(num_inference_steps, device)
        n_calls = len(self.scheduler.timesteps)
        momentum = Momentum()
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            passes = guidance.passes_at(step, n_calls)
            velocities = self._velocities(latents, timestep, encoded, passes, guidance.erg_diffusion)
            velocity = self.after_guidance(guidance.combine(velocities, step, n_calls, momentum))
            latents = self.scheduler.step(velocity, timestep, latents, omega, omega_reduction, generators)
        audios = latents
        if output_type == "audio":
            audios = decode_latents(latents, self.dcae, self.vocoder, SAMPLE_RATE)
        self.maybe_free_model_hooks()
        return AudioPipelineOutput(audios=audios)

    def frames(self, audio_duration: float) -> int:
        """Return the latent frames of a clip of `audio_duration` seconds."""
        return int(audio_duration * FRAMES_PER_SECOND)

    def text_tokens(self, prompt: str) -> int:
        """Return the number of tokens of a prompt, truncated at the encoder's limit."""
        return len(self.tokenizer(prompt, truncation=True, max_length=MAX_TEXT_TOKENS).input_ids)

    def lyric_ids(self, lyrics: str) -> list[int]:
        """Return the token numbers of lyrics; none for "".

        Raises:
            UserError: if the vocabulary is missing.
        """
        return self.lyric_tokenizer.encode(lyrics)

    def _latent_shape(self, audio_duration: float) -> tuple[int, ...]:
        config, frames = self.transformer.config, self.frames(audio_duration)
        if frames < 1:
            raise UserError(
                f"{audio_duration} s is shorter than a latent frame. Generate clips of at least "
                f"{1 / FRAMES_PER_SECOND:.2f} s."
            )
        return config.in_channels, config.max_height, frames

    def _velocities(
        self,
        latents: Float[Tensor, "row channel band frame"],
        timestep: Float[Tensor, ""],
        encoded: Encoded,
        passes: Sequence[str],
        erg_diffusion: bool,
    ) -> dict[str, Float[Tensor, "row channel band frame"]]:
        """Return the network's velocity in each pass, from one call."""
        n, times = len(latents), len(passes)
        row_passes = tuple(name for name in passes for _ in range(n))
        weak = torch.tensor([erg_diffusion and name == "null" for name in row_passes], device=latents.device)
        (velocity,) = self.transformer(
            hidden_states=latents.repeat(times, 1, 1, 1),
            timestep=timestep.expand(times * n),
            encoder_hidden_states=torch.cat([encoded.states[name] for name in passes]),
            encoder_attention_mask=encoded.mask.repeat(times, 1),
            encoder_positions=encoded.positions.repeat(times, 1),
            weak_queries=weak,
            passes=row_passes,
            return_dict=False,
        )
        return dict(zip(passes, velocity.chunk(times), strict=True))

    def _encode(self, texts: Sequence[tuple[str, str]], guidance: Guidance) -> Encoded:
        """Return the conditioning of each (prompt, lyrics), encoding each distinct one once."""
        different = list(dict.fromkeys(texts))
        place = torch.tensor([different.index(text) for text in texts])
        encoded = self._encode_different(different, guidance)
        return Encoded(
            {name: states[place.to(states.device)] for name, states in encoded.states.items()},
            encoded.mask[place.to(encoded.mask.device)],
            encoded.positions[place.to(encoded.positions.device)],
        )

    def _encode_different(self, texts: Sequence[tuple[str, str]], guidance: Guidance) -> Encoded:
        device = self._execution_device
        prompts = [prompt for prompt, _ in texts]
        text, text_mask = self._encode_text(prompts)
        ids = [self.lyric_ids(lyrics) for _, lyrics in texts]
        length = max(1, *map(len, ids))  # the lyric encoder needs at least one token, which may be masked
        lyric_ids = torch.tensor([row + [0] * (length - len(row)) for row in ids], device=device)
        lyric_mask = torch.tensor(
            [[token < len(row) for token in range(length)] for row in ids], device=device
        )
        speaker = text.new_zeros(len(texts), self.transformer.config.speaker_embedding_dim)
        weak_text = text.new_zeros(text.shape)
        if guidance.erg_tag and guidance.erg_lyric:
            with _weak_queries(self.text_encoder):
                weak_text, _ = self._encode_text(prompts)
        # The published pipeline weakens the lyrics, or replaces them all by token 0, with the same mask.
        null_ids = lyric_ids if guidance.erg_lyric else torch.zeros_like(lyric_ids)
        inputs = {
            "cond": (text, lyric_ids, False),
            "text": (text, null_ids, guidance.erg_lyric),
            "null": (weak_text, null_ids, guidance.erg_lyric),
        }
        n_tokens = 1 + text.shape[1] + (length if any(ids) else 0)
        states: dict[str, Tensor] = {}
        for name in guidance.passes:
            text_states, token_ids, weak = inputs[name]
            given, mask = self.transformer.encode(
                text_states, text_mask, speaker, token_ids, lyric_mask, weak
            )
            states[name] = given[:, :n_tokens]
        seen = mask[:, :n_tokens]
        return Encoded(states, seen, (seen.long().cumsum(1) - 1).clamp(min=0))

    def _encode_text(
        self, prompts: Sequence[str]
    ) -> tuple[Float[Tensor, "row token dim"], Bool[Tensor, "row token"]]:
        inputs = self.tokenizer(
            list(prompts), return_tensors="pt", padding=True, truncation=True, max_length=MAX_TEXT_TOKENS
        ).to(self._execution_device)
        states = self.text_encoder(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask
        ).last_hidden_state
        return states.to(self.transformer.dtype), inputs.attention_mask.bool()


def published_folder(source: str | Path, revision: str | None = None) -> Path:
    """Return the local folder of a checkpoint in the published layout; a hub id is downloaded first.

    Raises:
        UserError: if the checkpoint cannot be found or downloaded, or a part is missing.
    """
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(
                snapshot_download(
                    str(source), revision=revision, allow_patterns=[f"{name}/*" for name in FOLDERS.values()]
                )
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"The weights of '{source}' are neither a folder nor in the hub cache, and cannot be downloaded "
                f"({type(error).__name__}). Check the name and the network, or run `hf download {source}`."
            ) from error
    missing = [name for name in FOLDERS.values() if not (folder / name / "config.json").is_file()]
    if missing:
        raise UserError(
            f"{source} lacks {', '.join(missing)}. ACE-Step v1 needs {', '.join(FOLDERS.values())}, each with its "
            "config.json, as in ACE-Step/ACE-Step-v1-3.5B."
        )
    return folder


@contextmanager
def _weak_queries(text_encoder: UMT5EncoderModel) -> Iterator[None]:
    """Weaken the queries of some layers of the text encoder inside this block."""
    layers = [layer for i, layer in enumerate(text_encoder.encoder.block) if i in WEAK_TEXT_LAYERS]
    hooks = [
        layer.layer[0].SelfAttention.q.register_forward_hook(lambda module, given, output: output * WEAKENED)  # noqa: ARG005
        for layer in layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _noise(
    shape: tuple[int, ...], generators: Sequence[torch.Generator]
) -> Float[Tensor, "row channel band frame"]:
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def _for_each(given: Any, prompts: Sequence[str], name: str) -> list[Any]:
    """Return one value for each prompt."""
    if not prompts:
        raise UserError("The list of prompts is empty. Give at least one prompt.")
    values = [given] * len(prompts) if isinstance(given, str | int) else list(given)
    if len(values) != len(prompts):
        raise UserError(
            f"Got {len(values)} {name} for {len(prompts)} prompts. Give one for each, or one for all."
        )
    return values
