"""Adapter for ACE-Step 1.5 (`diffusers.AceStepPipeline`) on nnsight's `DiffusionModel`."""

import itertools
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AceStepPipeline, DiffusionPipeline
from jaxtyping import Float
from nnsight import NNsight
from nnsight.modeling.diffusion import DiffusionModel

from cache.errors import UserError
from workbench.conditioning import ConditioningTable
from workbench.interventions import Intervention, PatchSpec
from workbench.linearise import linearise
from workbench.models.ace_step_call import (
    CallOfAceStep,
    cond_inputs,
    conditionings,
    row_mask,
    select_rows,
)
from workbench.models.protocol import (
    CallInputs,
    CallLabel,
    Capture,
    Clip,
    Generation,
    GenerationSettings,
    Linearisation,
    Sink,
)
from workbench.provenance import weights_hash
from workbench.rows import call_rows, started_clips
from workbench.segments import Conditioning, segment_positions
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
        self.head_dim: int = self.config.head_dim
        self.sample_rate: int = self.pipeline.sample_rate

    @property
    def denoiser(self) -> torch.nn.Module:
        """The diffusion transformer."""
        return self.pipeline.transformer

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

    def heads(self, part: str) -> int:
        """Heads of an attention part: key and value heads at `k` and `v`, else query heads."""
        keys = part.rpartition(".")[2] in ("k", "v")
        return int(self.config.num_key_value_heads if keys else self.config.num_attention_heads)

    def conditioning(self, clip: Clip, settings: GenerationSettings) -> Conditioning:
        """Where the segments of a clip's conditioning and the words of its prompt lie."""
        segments = self.segments(clip, settings)
        text, mark = (
            self.pipeline._format_prompt(prompt, clip.lyrics, audio_duration=settings.duration)[0]
            for prompt in (clip.prompt, "\0")
        )
        start, first = mark.index("\0"), segments["text"][0]
        offsets = self.pipeline.tokenizer(
            text, truncation=True, max_length=256, return_offsets_mapping=True
        ).offset_mapping
        # A token begins where the one before it ends: where a tokenizer rewrites its text, beginnings may be wrong.
        ends = [0, *itertools.accumulate((end for _, end in offsets), max)]
        words = []
        for word in re.finditer(r"\S+", clip.prompt):
            inside = [
                first + token
                for token, (begin, end) in enumerate(itertools.pairwise(ends))
                if begin < start + word.end() and end > start + word.start()
            ]
            if inside:  # a long prompt is cut off
                words.append((word.group(), inside[0], inside[-1] + 1))
        return Conditioning(segments, tuple(words))

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
        velocity_steps: Sequence[int] = (),
    ) -> Generation:
        """Generate all clips as one batch, intervening and capturing on the way; captured values go to the sink.

        Rows that equal another one, and shadows that nobody reads, are not computed. Where there are interventions,
        equal prompts are encoded once, and keys and values of the conditioning are computed once. Raises UserError
        for an empty batch, for unknown blocks, heads, segments and clips, and for passes or steps that the run does
        not have.
        """
        self._check(clips, settings, interventions, capture)
        calls: list[CallLabel] = []
        kept: dict[Site, list[torch.Tensor]] = defaultdict(list)
        velocities: dict[int, torch.Tensor] = {}
        table = ConditioningTable() if interventions else None
        inputs: dict[int, CallInputs] = {}
        positions = self.positions(clips, settings, interventions)
        started: set[int] = set()
        computed: list[int] = []

        def keep(site: Site, step: int, values: torch.Tensor) -> None:  # noqa: ARG001 - steps come in order
            kept[site].append(values)

        access = CallOfAceStep(self.nn.transformer, self.n_blocks, self.head_dim)
        with torch.no_grad(), self.nn.trace(**self._pipeline_arguments(clips, settings)) as tracer:
            if interventions:
                self._encode_once(clips)
            real_tokens = self.nn.condition_encoder.output[1]
            for _ in tracer.iter[: settings.num_steps]:
                label = self.label_call(self.nn.transformer.inputs[1], len(clips))
                probing = label.step in velocity_steps
                rows = call_rows(label, clips, interventions, started, probing)
                started |= started_clips(label, interventions)
                calls.append(label)
                computed.append(len(rows.run))
                if probing:
                    inputs[label.step] = cond_inputs(
                        access.inputs(rows, clips), label, len(clips), real_tokens
                    )
                access.choose_rows(rows, clips)
                if table is not None:
                    table.start_call(conditionings(rows, clips))
                    if table.complete:
                        access.skip_conditioning(len(rows.run))
                mask = row_mask(real_tokens, rows)
                visit_call(access, rows, interventions, positions, capture, mask, sink or keep, table)
                velocity = access.give_rows(rows, read=probing)
                if velocity is not None:
                    cond = [label.row(clip, "cond") for clip in range(len(clips))]
                    velocities[label.step] = velocity[cond]
            output = self.nn.output.save()
        return Generation(
            latents=output.audios,
            calls=calls,
            activations={site: torch.stack(values, dim=1) for site, values in kept.items()},
            velocities=velocities,
            inputs=inputs,
            rows=sum(computed),
        )

    def _encode_once(self, clips: Sequence[Clip]) -> None:
        """Inside a trace: encode each different conditioning once, and give every clip its own."""
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

    def positions(
        self, clips: Sequence[Clip], settings: GenerationSettings, interventions: Sequence[Intervention]
    ) -> list[tuple[int, ...] | None]:
        """Conditioning tokens that each intervention is limited to; None for all."""
        where: list[tuple[int, ...] | None] = []
        if not any(isinstance(i.spec, PatchSpec) and i.spec.segments is not None for i in interventions):
            return [None] * len(interventions)
        spans = [self.segments(clip, settings).values() for clip in clips]
        n_tokens = sum(max(last - first for first, last in of_all) for of_all in zip(*spans, strict=True))
        for intervention in interventions:
            names = intervention.spec.segments if isinstance(intervention.spec, PatchSpec) else None
            if names is None:
                where.append(None)
                continue
            target, source = (
                self.conditioning(clips[row], settings) for row in (intervention.row, intervention.sources[0])
            )
            where.append(tuple(segment_positions(names, target, source, n_tokens)))
        return where

    def linearise(
        self,
        inputs: CallInputs,
        clip: int,
        sites: Sequence[Site],
        direction: Float[torch.Tensor, "frame latent_channel"] | None = None,
    ) -> Linearisation:
        """Repeat a call for one clip, and differentiate its velocity along a direction at the sites.

        Without a direction there are values only.
        """
        arguments = {
            name: value[clip : clip + 1] if isinstance(value, torch.Tensor) else value
            for name, value in inputs.arguments.items()
        }
        network = NNsight(self.pipeline.transformer)
        access = CallOfAceStep(network, self.n_blocks, self.head_dim)
        along = None if direction is None else lambda velocity: (velocity * direction).sum()
        mask = None if inputs.mask is None else inputs.mask[clip : clip + 1]
        return linearise(network, access, arguments, sites, along, mask)

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
        rows = [row for i in interventions for row in (i.row, *i.sources)]
        rows += [clip.shadow_of for clip in clips if clip.shadow_of is not None]
        if any(not 0 <= row < len(clips) for row in rows):
            raise UserError(
                f"An intervention or a shadow names row {max(rows)}, but the batch has {len(clips)} clips (0-based)."
            )
        if any(clip.shadow_of is not None and clips[clip.shadow_of].shadow_of is not None for clip in clips):
            raise UserError(
                "A clip shadows another one that is itself a shadow: let it shadow a clip of its own."
            )
        self._check_heads(interventions)
        if capture is not None:
            self.check_capture(capture, settings)

    def _check_heads(self, interventions: Sequence[Intervention]) -> None:
        for spec in (i.spec for i in interventions if i.spec.heads is not None):
            assert spec.heads is not None
            for site in map(Site.parse, spec.sites):
                if not all(0 <= head < self.heads(site.part) for head in spec.heads):
                    raise UserError(
                        f"{site} has heads 0 to {self.heads(site.part) - 1}, not {max(spec.heads)} "
                        "(keys and values have heads of their own, each shared by several query heads)."
                    )


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
