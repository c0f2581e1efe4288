"""Adapter for ACE-Step 1.5 (`diffusers.AceStepPipeline`) on nnsight's `DiffusionModel`."""

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AceStepPipeline, DiffusionPipeline
from jaxtyping import Bool, Float
from nnsight.modeling.diffusion import DiffusionModel

from cache.errors import UserError
from workbench.interventions import Intervention
from workbench.models.protocol import CallLabel, Capture, Clip, Generation, GenerationSettings, Sink
from workbench.provenance import weights_hash
from workbench.sites import PARTS, Site, check_blocks
from workbench.tracing import visit_call

PEAK = 10 ** (-1 / 20)  # the pipeline normalises every clip to -1 dBFS


class AceStep15:
    """ACE-Step 1.5 (base, sft, turbo, XL, or an embedded organism) behind the `AudioDiffusionModel` protocol.

    The pipeline runs unchanged; nnsight reads and writes its transformer. One addition: the 1.5 transformer attends
    to the padding of shorter prompts in a batch, so that a row would depend on its neighbours; here padding is
    masked out of the cross-attention, and a batch row equals the same clip generated alone.
    """

    def __init__(self, name: str, source: str, device: str = "cpu", dtype: str = "float32") -> None:
        for library in (diffusers, transformers):  # their bars for each file bury what the user waits for
            library.utils.logging.disable_progress_bar()
        folder = _weights_folder(source)
        try:
            with warnings.catch_warnings():
                # Of diffusers, for every AutoencoderOobleck; a user can do nothing about it.
                warnings.filterwarnings("ignore", ".*weight_norm.*", FutureWarning)
                self.nn = DiffusionModel(
                    str(folder), automodel=AceStepPipeline, dispatch=True, dtype=getattr(torch, dtype)
                )
        except (OSError, ValueError) as error:
            raise UserError(f"The model '{name}' cannot be loaded from {source}: {error}") from error
        self.pipeline: AceStepPipeline = self.nn.pipeline
        self.pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.name = name
        self.source = source
        self.device = device
        self.dtype = dtype
        self.weights_hash = weights_hash(folder)
        self.config = self.pipeline.transformer.config
        self.n_blocks: int = self.config.num_hidden_layers
        self.sample_rate: int = self.pipeline.sample_rate

    def describe(self) -> dict[str, Any]:
        """Name, source, weights hash, device and dtype: what provenance records."""
        return {
            "model": self.name,
            "weights_hash": self.weights_hash,
            "device": self.device,
            "dtype": self.dtype,
        }

    # Sites and sizes

    def sites(self) -> list[Site]:
        """Every site, in order of computation."""
        return [Site(block, part) for block in range(self.n_blocks) for part in PARTS]

    def channels(self, site: Site) -> int:
        """Width of the site's last axis; grouped-query attention has fewer key and value heads than query heads."""
        check_blocks([site.block], self.n_blocks)
        inner = site.part.rpartition(".")[2]
        if inner in ("k", "v"):
            return self.config.num_key_value_heads * self.config.head_dim
        if inner in ("q", "heads"):
            return self.config.num_attention_heads * self.config.head_dim
        return self.config.hidden_size

    def frames(self, duration: float) -> int:
        """Latent frames of a clip of `duration` seconds."""
        return math.ceil(duration * self.pipeline.latents_per_second)

    def tokens(self, duration: float) -> int:
        """Latent-time tokens of a clip of `duration` seconds: latent frames in patches."""
        return math.ceil(self.frames(duration) / self.config.patch_size)

    @property
    def token_seconds(self) -> float:
        """Seconds of music per token."""
        return self.config.patch_size / self.pipeline.latents_per_second

    # The generation's shape

    def passes(self, settings: GenerationSettings) -> tuple[str, ...]:
        """("cond", "null") under guidance, else ("cond",); turbo checkpoints have guidance distilled into them."""
        guided = settings.guidance_scale > 1 and not self.pipeline.is_turbo
        return ("cond", "null") if guided else ("cond",)

    def sigmas(self, settings: GenerationSettings) -> list[float]:
        """Sigma of each step."""
        schedule = self.pipeline._get_timestep_schedule(
            settings.num_steps, settings.shift, dtype=torch.float32
        )
        return [float(sigma) for sigma in schedule]

    def segments(self, clip: Clip, settings: GenerationSettings) -> dict[str, tuple[int, int]]:
        """Spans (first, last + 1) of the conditioning tokens of a clip: lyrics, timbre (one token), text."""
        text, lyrics = self.pipeline._format_prompt(
            clip.prompt, clip.lyrics, audio_duration=settings.duration
        )
        n_lyrics = len(self.pipeline.tokenizer(lyrics, truncation=True, max_length=2048).input_ids)
        n_text = len(self.pipeline.tokenizer(text, truncation=True, max_length=256).input_ids)
        return {
            "lyrics": (0, n_lyrics),
            "timbre": (n_lyrics, n_lyrics + 1),
            "text": (n_lyrics + 1, n_lyrics + 1 + n_text),
        }

    # Running

    def noise(
        self, clips: Sequence[Clip], duration: float
    ) -> Float[torch.Tensor, "clip frame latent_channel"]:
        """Initial latents: each clip's own draw from its seed, so that a row does not depend on its batch."""
        shape = (1, self.frames(duration), self.config.audio_acoustic_hidden_dim)
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(clip.seed)) for clip in clips]
        return torch.cat(draws).to(self.device, self.pipeline.transformer.dtype)

    def generate(
        self,
        clips: Sequence[Clip],
        settings: GenerationSettings,
        interventions: Sequence[Intervention] = (),
        capture: Capture | None = None,
        sink: Sink | None = None,
    ) -> Generation:
        """Generate all clips as one batch, intervening and capturing on the way; captured values go to the sink.

        Raises UserError for an empty batch, for unknown blocks, and for passes or steps that the run does not have.
        """
        self._check(clips, settings, interventions, capture)
        calls: list[CallLabel] = []
        kept: dict[Site, list[torch.Tensor]] = defaultdict(list)

        def keep(site: Site, step: int, values: torch.Tensor) -> None:  # noqa: ARG001 - steps come in order
            kept[site].append(values)

        access = _Access(self.nn.transformer, self.n_blocks)
        with torch.no_grad(), self.nn.trace(**self._pipeline_arguments(clips, settings)) as tracer:
            real_tokens = self.nn.condition_encoder.output[1]
            for _ in tracer.iter[: settings.num_steps]:
                label = self.label_call(self.nn.transformer.inputs[1], len(clips))
                calls.append(label)
                mask = _row_mask(real_tokens, label)
                visit_call(access, label, interventions, capture, mask, sink or keep)
            output = self.nn.output.save()
        return Generation(
            latents=output.audios,
            calls=calls,
            activations={site: torch.stack(values, dim=1) for site, values in kept.items()},
        )

    def label_call(self, inputs: dict[str, Any], n_clips: int) -> CallLabel:
        """Label of a call, read off its own inputs: step and sigma from its timestep, passes from its conditioning.

        A row is the null pass where all its conditioning tokens equal the learned null embedding.
        """
        timestep, states = inputs["timestep"], inputs["encoder_hidden_states"]
        schedule = self.pipeline.scheduler.timesteps
        matches = (schedule.to(timestep.dtype).to(timestep.device) == timestep[0]).nonzero().flatten()
        if len(matches) != 1:
            raise UserError(
                f"The denoiser was called at sigma {float(timestep[0]):.6g}, which matches {len(matches)} steps of the "
                f"schedule: use fewer steps or a finer dtype than {self.dtype}."
            )
        null = self.pipeline.condition_encoder.null_condition_emb.to(states)
        is_null = (states == null).flatten(1).all(dim=1).tolist()
        step = int(matches[0])
        return CallLabel(
            step=step,
            sigma=float(schedule[step]),
            clips=tuple(row % n_clips for row in range(len(states))),
            passes=tuple("null" if row_is_null else "cond" for row_is_null in is_null),
        )

    @torch.no_grad()
    def decode(
        self, latents: Float[torch.Tensor, "clip frame latent_channel"]
    ) -> Float[torch.Tensor, "clip channel sample"]:
        """Latents to audio at `sample_rate`: the VAE, then peaks brought to -1 dBFS, as the pipeline does.

        One clip at a time: that bounds the memory of a large sweep, and on a CPU it is three times as fast as eight at
        once, whose intermediate values the system must map into memory anew for every layer.
        """
        decoded = [self.pipeline.vae.decode(rows.transpose(1, 2)).sample.float() for rows in latents.split(1)]
        audio = torch.cat(decoded)
        audio = audio / audio.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1.0)
        return audio * (PEAK / audio.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-6))

    def check_capture(self, capture: Capture, settings: GenerationSettings) -> None:
        """Raise UserError for sites, steps or passes that a generation with these settings does not have."""
        check_blocks([site.block for site in capture.sites], self.n_blocks)
        if not set(capture.passes) <= set(self.passes(settings)):
            raise UserError(
                f"This run has the passes {', '.join(self.passes(settings))}, not {', '.join(capture.passes)}: "
                "the null pass needs a guidance scale above 1 and a model without distilled guidance."
            )
        if any(not 0 <= step < settings.num_steps for step in capture.steps):
            raise UserError(
                f"Steps {list(capture.steps)} were asked for, but this run has steps 0 to {settings.num_steps - 1}."
            )

    def _pipeline_arguments(self, clips: Sequence[Clip], settings: GenerationSettings) -> dict[str, Any]:
        return {
            "prompt": [clip.prompt for clip in clips],
            "lyrics": [clip.lyrics for clip in clips],
            "audio_duration": settings.duration,
            "num_inference_steps": settings.num_steps,
            "guidance_scale": settings.guidance_scale,
            "shift": settings.shift,
            "cfg_interval_start": settings.cfg_interval_start,
            "cfg_interval_end": settings.cfg_interval_end,
            "latents": self.noise(clips, settings.duration),
            "output_type": "latent",
        }

    def _check(
        self,
        clips: Sequence[Clip],
        settings: GenerationSettings,
        interventions: Sequence[Intervention],
        capture: Capture | None,
    ) -> None:
        if not clips:
            raise UserError("There is nothing to generate: the list of clips is empty.")
        check_blocks(
            [Site.parse(site).block for intervention in interventions for site in intervention.spec.sites],
            self.n_blocks,
        )
        rows = [row for i in interventions for row in (i.row, i.source) if row is not None]
        if any(not 0 <= row < len(clips) for row in rows):
            raise UserError(
                f"An intervention names row {max(rows)}, but the batch has {len(clips)} clips (0-based)."
            )
        if capture is not None:
            self.check_capture(capture, settings)


class _Access:
    """`CallAccess` of an `AceStepTransformer1DModel` envoy inside a running nnsight trace."""

    def __init__(self, transformer: Any, n_blocks: int) -> None:
        self.layers = transformer.layers
        self.n_blocks = n_blocks

    def read(self, site: Site) -> Float[torch.Tensor, "row token channel"]:
        envoy, attribute = self._locate(site)
        return getattr(envoy, attribute)

    def write(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        envoy, attribute = self._locate(site)
        setattr(envoy, attribute, value)

    def read_conditioning(self, block: int) -> Float[torch.Tensor, "row token channel"]:
        return self.layers[block].cross_attn.inputs[1]["encoder_hidden_states"]

    def write_conditioning(
        self,
        block: int,
        states: Float[torch.Tensor, "row token channel"],
        mask: Bool[torch.Tensor, "row token"] | None,
    ) -> None:
        args, kwargs = self.layers[block].cross_attn.inputs
        attention_mask = None if mask is None else mask[:, None, None, :]
        self.layers[block].cross_attn.inputs = (
            args,
            {**kwargs, "encoder_hidden_states": states, "attention_mask": attention_mask},
        )

    def _locate(self, site: Site) -> tuple[Any, str]:
        """The envoy and the attribute of it that hold a site's value."""
        layer = self.layers[site.block]
        if site.part == "block":
            return layer, "output"
        name, _, inner = site.part.partition(".")
        module = getattr(layer, name)
        if inner == "heads":
            return module.to_out[0], "input"
        return (getattr(module, f"to_{inner}") if inner else module), "output"


def _row_mask(
    real_tokens: Bool[torch.Tensor, "clip token"], label: CallLabel
) -> Bool[torch.Tensor, "row token"] | None:
    """Which conditioning tokens each row of a call may see; None when no clip is padded."""
    if bool(real_tokens.all()):
        return None
    return real_tokens.bool()[torch.tensor(label.clips, device=real_tokens.device)]


def _weights_folder(source: str) -> Path:
    """The local folder of a pipeline; a hub id is downloaded (or found in the hub cache) first."""
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(DiffusionPipeline.download(source))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The weights of '{source}' are neither in the hub cache nor can they be downloaded: check the name, the "
            f"network (or run `hf download {source}` where there is one), and that it is in diffusers' layout, "
            f"with a model_index.json ({type(error).__name__})."
        ) from error
