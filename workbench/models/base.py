"""The base class of all models: a diffusers pipeline on nnsight's `DiffusionModel`, traced and edited."""

import itertools
import re
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Real

from cache.errors import UserError
from cache.protocol import DIMS
from cache.wording import quoted
from workbench.audio import not_finite
from workbench.engine.batch import Batch, Row, RowEdit, plan_batch
from workbench.engine.conditioning import ConditioningTable
from workbench.engine.edits import Edit, Run, all_edits, as_run
from workbench.engine.operators import OPERATORS
from workbench.engine.rows import call_rows, shared_clips, started_clips
from workbench.engine.runs import CallInputs, CallLabel, Capture, Clip, Generation, Linearisation, Sink
from workbench.engine.segments import Conditioning, Span, batch_tokens, out_of_place, segment_positions
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import PARTS, Site, check_blocks, listed_sites, parse_sites
from workbench.engine.velocities import VelocityEdits
from workbench.engine.visit import visit_call
from workbench.engine.windows import check_segments, check_steps, check_windows
from workbench.models import unreachable_weights
from workbench.models.folders import loading
from workbench.models.generated import Activations, GeneratedClip, GeneratedClips, generated_clips
from workbench.models.network_call import NetworkCall, Reached, named_arguments
from workbench.models.options import Options, options_of
from workbench.models.pipeline_call import PipelineCall, cond_inputs, conditioning_key, conditionings
from workbench.models.sampling import Sampling
from workbench.provenance import weights_hash
from workbench.seeds import seed_array
from workbench.validation import must_be


class AudioDiffusionModel(ABC):
    """A music diffusion model that can be run, traced and edited: a diffusers pipeline.

    The pipeline runs unchanged; nnsight reads and writes its denoiser. A subclass, one for each architecture, defines
    how its pipeline is called, what a call's inputs mean (`label_call`), and where a block's parts are (its
    `PipelineCall`).

    `block_names` are "tf0", "tf1" …, unless a paper has other names for the blocks. In a `one_stream` network the
    blocks follow one another directly, so that only sites write to the stream between two of them.
    """

    pipeline_class: ClassVar[type[Any]]
    call_class: ClassVar[type[PipelineCall]]
    options_class: ClassVar[type[Options]]
    one_stream: ClassVar[bool] = True
    nonlinear_text: ClassVar[str] = ""
    """What is not linear between the text encoder's states and keys and values."""

    def __init__(self, name: str, source: str, device: str = "cpu", dtype: str = "float32") -> None:
        # Slow to import, and not needed without a model.
        import diffusers
        import transformers

        from workbench.plain_nnsight import DiffusionModel

        for library in (diffusers, transformers):  # their progress bar for every file would hide ours
            library.utils.logging.disable_progress_bar()
        folder = self.weights_folder(source)
        with loading(name, folder), warnings.catch_warnings():
            # diffusers warns about every AutoencoderOobleck; users cannot act on it.
            warnings.filterwarnings("ignore", ".*weight_norm.*", FutureWarning)
            self.nn = DiffusionModel(
                str(folder), automodel=self.pipeline_class, dispatch=True, dtype=getattr(torch, dtype)
            )
        self.pipeline: Any = self.nn.pipeline
        self.pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.name = name
        self.source = source
        self.device = device
        self.dtype = dtype
        self.weights_hash = weights_hash(folder)
        self.config: Any = self.denoiser.config
        self._modules = self.call_access(self.denoiser)
        self.n_blocks: int = self._modules.n_blocks
        self.block_names: tuple[str, ...] = self._modules.block_names

    @classmethod
    def weights_folder(cls, source: str) -> Path:
        """Return the local folder of a pipeline; a hub id is downloaded first, unless it is in the hub cache."""
        if Path(source).is_dir():
            return Path(source)
        from diffusers import DiffusionPipeline

        try:
            return Path(DiffusionPipeline.download(source))
        except (OSError, ValueError) as error:
            raise unreachable_weights(source, error) from error

    # Defined by subclasses

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Samples per second of the decoded audio."""

    @property
    def denoiser(self) -> torch.nn.Module:
        """The network that runs once per step."""
        return self.pipeline.transformer

    def call_access(self, network: Any) -> PipelineCall:
        """Return access to a call of the denoiser, given its envoy, or the module if only sizes are needed."""
        return self.call_class(network)

    @property
    @abstractmethod
    def token_seconds(self) -> float:
        """Seconds of music per token."""

    @abstractmethod
    def tokens(self, duration: float) -> int:
        """Latent-time tokens of a clip of `duration` seconds."""

    def tokens_at(self, site: Site, duration: float) -> int:  # noqa: ARG002 - the same, in most networks
        """Return the tokens of a site: `tokens`, or fewer in networks with several resolutions."""
        return self.tokens(duration)

    def token_seconds_at(self, site: Site) -> float:  # noqa: ARG002 - the same, in most networks
        """Return the seconds of music per token of a site: `token_seconds`, or more if it has fewer tokens."""
        return self.token_seconds

    def seconds(self, duration: float) -> float:
        """Return the seconds of audio of a clip of `duration` seconds: as many, or what whole latent frames give."""
        return duration

    @abstractmethod
    def passes(self, settings: GenerationSettings) -> tuple[str, ...]:
        """Guidance passes that a generation with these settings runs."""

    @abstractmethod
    def sigmas(self, settings: GenerationSettings) -> list[float]:
        """Sigma of each step."""

    @abstractmethod
    def segments(self, clip: Clip, settings: GenerationSettings) -> dict[str, Span]:
        """Spans (first, last + 1) of a clip's conditioning tokens."""

    @abstractmethod
    def conditioning(self, clip: Clip, settings: GenerationSettings) -> Conditioning:
        """Return the spans of the segments of a clip's conditioning and of the words of its prompt."""

    @abstractmethod
    def encoded_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:
        """Return the tokens that each encoder reads from a clip's prompt and lyrics, truncated at its limit."""

    def placed_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:
        """Return those of `encoded_tokens` that have a state each in the conditioning: all, in most models."""
        return self.encoded_tokens(clip, settings)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that are not fully in the text encoder's vocabulary."""
        tokenizer = self.pipeline.tokenizer
        return [
            word
            for word in dict.fromkeys(re.findall(r"\w+", text))
            if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False).input_ids
        ]

    @abstractmethod
    def label_call(self, inputs: dict[str, Any], n_clips: int) -> CallLabel:
        """Label a call by its inputs."""

    def step_of(self, timestep: Real[torch.Tensor, ""], schedule: Real[torch.Tensor, " step"]) -> int:
        """Return the step with this timestep; raise UserError unless exactly one has it."""
        matches = (schedule.to(timestep.dtype).to(timestep.device) == timestep).nonzero().flatten()
        if len(matches) != 1:
            raise UserError(
                f"The denoiser was called at timestep {float(timestep):.6g}, which matches {len(matches)} steps of the "
                f"schedule. Use fewer steps, or a more precise dtype than {self.dtype}."
            )
        return int(matches[0])

    @abstractmethod
    def decode(
        self, latents: Float[torch.Tensor, "clip frame latent_channel"], duration: float | None = None
    ) -> Float[torch.Tensor, "clip channel sample"]:
        """Decode latents to audio at `sample_rate`, cut to `duration` seconds if they are longer than the clip."""

    @abstractmethod
    def _pipeline_arguments(self, clips: Sequence[Clip], settings: GenerationSettings) -> dict[str, Any]:
        """Return the pipeline's arguments, for latents as output."""

    @abstractmethod
    def _latents(self, output: Any) -> Float[torch.Tensor, "clip frame latent_channel"]:
        """Return the latents in the pipeline's output."""

    def check_settings(self, settings: GenerationSettings) -> None:
        """Raise UserError for settings that this model does not support."""
        options_of(self.options_class, settings)

    def check_lyrics(self, lyrics: str) -> None:
        """Raise UserError for lyrics that the model does not support."""
        if lyrics:
            raise UserError("This model does not support lyrics. Leave them out.")

    def step_passes(self, settings: GenerationSettings) -> list[tuple[str, ...]]:
        """Guidance passes of each step."""
        return [self.passes(settings)] * settings.num_steps

    def guided_throughout(self, settings: GenerationSettings) -> GenerationSettings:
        """Return the settings with all passes in every step."""
        return settings

    def step_sizes(self, settings: GenerationSettings) -> list[float]:
        """Change of the latents in each step per change of the network's output, up to a common factor.

        In flow matching this is the decrease of sigma; the last step ends at 0.
        """
        return [-float(change) for change in np.diff([*self.sigmas(settings), 0.0])]

    def _encode(self, clips: Sequence[Clip], access: PipelineCall, sharing: bool) -> None:  # noqa: B027 - may be nothing
        """Read or change the encoded conditioning, inside a trace before the first call."""

    @contextmanager
    def _following(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Inside, the sampler follows `change` of the velocities of each step, which are those after guidance."""
        scheduler = self.pipeline.scheduler
        step = scheduler.step

        @wraps(step)
        def changed(velocity: torch.Tensor, *rest: Any, **options: Any) -> Any:
            return step(change(velocity), *rest, **options)

        scheduler.step = changed
        try:
            yield
        finally:
            del scheduler.step  # the class's own again

    # Shared by all models

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {self.n_blocks} blocks, {self.dtype} on {self.device})"

    def describe(self) -> dict[str, Any]:
        """Return what provenance records (name, source, weights hash, device, dtype), and the block names."""
        numbers = tuple(f"tf{block}" for block in range(self.n_blocks))
        names = {} if self.block_names == numbers else {"block_names": list(self.block_names)}
        return {
            "model": self.name,
            "weights_hash": self.weights_hash,
            "device": self.device,
            "dtype": self.dtype,
            **names,
        }

    def sampling(self, settings: GenerationSettings) -> Sampling:
        """Return what a run with these settings does; raise UserError for settings that the model does not support."""
        self.check_settings(settings)
        of_steps = self.step_passes(settings)
        is_guided = any(len(passes) > 1 for passes in of_steps)
        return Sampling(
            architecture=self.options_class.architecture,
            scheduler=self.scheduler_name(settings),
            guidance_scale=settings.guidance_scale if is_guided else 1.0,
            passes=tuple(of_steps),
            options=options_of(self.options_class, settings).model_dump(mode="json"),
            adapters=tuple(sorted(getattr(self.denoiser, "peft_config", {}))),
        )

    def scheduler_name(self, settings: GenerationSettings) -> str:  # noqa: ARG002 - the pipeline's own, in most
        """Return the name of the scheduler that a run with these settings uses."""
        return type(self.pipeline.scheduler).__name__

    def sites(self) -> list[Site]:
        """Every site, in order of computation."""
        return [Site(block, part) for block in range(self.n_blocks) for part in PARTS]

    def channels(self, site: Site) -> int:
        """Width of the site's last axis; grouped-query attention has fewer key and value heads than query heads."""
        check_blocks([site.block], self.n_blocks)
        return self._modules.channels(site)

    def linear(self, site: Site) -> torch.nn.Linear:
        """Return the linear module of the denoiser whose output is the site, as `low_rank` edits change it."""
        check_blocks([site.block], self.n_blocks)
        module: torch.nn.Linear = self._modules.linear(site)
        return module

    def from_text(
        self, direction: Float[torch.Tensor, " text_channel"], site: Site
    ) -> Float[torch.Tensor, " channel"]:
        """Return how the keys or values of a site change if a state of the text encoder changes by a direction.

        Raises:
            UserError: if they are not affine in the text encoder's states, or these have another width.
        """
        change = direction.double()
        for module in (*self._text_projections(site.block), self.linear(site)):
            if len(change) != module.in_features:
                raise UserError(
                    f"The direction must have {module.in_features} numbers, the width of the text encoder of "
                    f"{self.name}; it has {len(change)}."
                )
            change = module.weight.detach().to(change) @ change
        return change

    def _text_projections(self, block: int) -> tuple[torch.nn.Linear, ...]:
        """Return the linear modules between the text encoder's states and those that a block's cross-attention reads.

        Raises:
            UserError: if there are other modules.
        """
        raise UserError(
            f"The keys and values of block {self.block_names[block]} of {self.name} are not affine in the text "
            f"encoder's states ({self.nonlinear_text}), so a direction of these states has no keys and values of its "
            "own. Use a direction made on this model, with token_embedding."
        )

    def reads(self, block: int) -> slice:
        """Return which conditioning tokens, as numbered by `segments`, the block's cross-attention reads."""
        return self._modules.reads(block)

    def head_dim(self, block: int) -> int:
        """Channels of a head in a block's attentions."""
        return self._modules.head_dim(block)

    def heads(self, part: str) -> int:
        """Return the heads of an attention part: key and value heads at `k` and `v`, otherwise query heads."""
        attention, _, inner = part.rpartition(".")
        return self.channels(Site(0, f"{attention or 'cross_attn'}.{inner}")) // self.head_dim(0)

    @overload
    def generate(
        self,
        clips: Clip,
        settings: GenerationSettings | None = None,
        *,
        edits: Edit | Sequence[Edit | Sequence[Edit]] = (),
        capture: str | Sequence[str] = (),
    ) -> GeneratedClip: ...
    @overload
    def generate(
        self,
        clips: Sequence[Clip],
        settings: GenerationSettings | None = None,
        *,
        edits: Edit | Sequence[Edit | Sequence[Edit]] = (),
        capture: str | Sequence[str] = (),
    ) -> GeneratedClips: ...
    def generate(
        self,
        clips: Clip | Sequence[Clip],
        settings: GenerationSettings | None = None,
        *,
        edits: Edit | Sequence[Edit | Sequence[Edit]] = (),
        capture: str | Sequence[str] = (),
    ) -> GeneratedClip | GeneratedClips:
        """Generate a clip, or several as one batch, with edits, and return audio and labelled activations.

        Args:
            clips: a clip, or several.
            settings: generation settings.
            edits: applied to each clip in this order; one may be a sequence of edits, such as a vector's.
            capture: sites ("tf4.cross_attn", "*.block") whose activations are captured, at all steps and in the passes
                that every step has. They are held in memory: for many clips or sites, trace a study or use
                `generate_batch` with a sink.

        Raises:
            UserError: as in `generate_batch`; or an edit's window has no step, sigma, pass or token of the run, or
                numbers become NaN or infinite.
        """
        asked = [clips] if isinstance(clips, Clip) else clips
        needed = "generate needs clips, such as those of wb.clips(['a slow sad piano song'])"
        must_be(Sequence, asked, needed)
        for clip in asked:
            must_be(Clip, clip, needed)
        settings = settings_or_default(settings)
        must_be(
            Iterable,
            capture,
            "capture must be a site or a list of sites, such as ['tf4.cross_attn'] (leave it out for none)",
        )
        wanted = self._everything(listed_sites(capture), settings)
        of_each = all_edits(edits)
        runs = [Run(clip, of_each) for clip in asked]
        self.check_windows(runs, settings)
        check_segments(self.plan(runs, settings).edits)
        generation = self.generate_batch(runs, settings, capture=wanted)
        audio = self.decode(generation.latents, settings.duration).float().cpu().numpy()
        for clip, step, samples in zip(asked, generation.broke_at, audio, strict=True):
            if step is not None or not np.isfinite(samples).all():
                raise UserError(not_finite(f"The clip {quoted(clip.prompt)}", step, self.dtype))
        kept = self._labelled(asked, settings, generation, wanted)
        generated = generated_clips(asked, audio, self.sample_rate, kept)
        return generated[0] if isinstance(clips, Clip) else generated

    def _everything(self, sites: Sequence[str], settings: GenerationSettings) -> Capture | None:
        """Return the capture of some sites at all steps, in the passes that every step has; None without sites."""
        if not sites:
            return None
        self.check_settings(settings)
        of_steps = self.step_passes(settings)
        passes = tuple(name for name in of_steps[0] if all(name in of_step for of_step in of_steps))
        kept = parse_sites(sites, self.n_blocks, self.block_names)
        return Capture(kept, tuple(range(settings.num_steps)), passes)

    def _labelled(
        self,
        clips: Sequence[Clip],
        settings: GenerationSettings,
        generation: Generation,
        capture: Capture | None,
    ) -> Activations:
        if capture is None:
            return Activations({}, self.block_names)
        coords = {
            "clip": range(len(clips)),
            "prompt": ("clip", [clip.prompt for clip in clips]),
            "lyrics": ("clip", [clip.lyrics for clip in clips]),
            "seed": ("clip", seed_array([clip.seed for clip in clips])),
            "step": list(capture.steps),
            "sigma": ("step", self.sigmas(settings)),
            "pass": list(capture.passes),
        }
        arrays = {}
        for site, values in generation.activations.items():
            array = xr.DataArray(values.float().cpu().numpy(), coords, DIMS, name=str(site))
            if not site.on_conditioning:
                seconds = np.arange(array.sizes["token"]) * self.token_seconds_at(site)
                array = array.assign_coords(seconds=("token", seconds))
            arrays[str(site)] = array
        return Activations(arrays, self.block_names)

    def generate_batch(
        self,
        runs: Sequence[Clip | Run],
        settings: GenerationSettings,
        capture: Capture | None = None,
        sink: Sink | None = None,
        velocity_steps: Sequence[int] = (),
    ) -> Generation:
        """Generate all runs as one batch, with their edits; captured values are passed to the sink, if there is one.

        Runs that edits read from need not be among `runs`: they become additional rows of the batch. Rows that equal
        another one are computed once, and shadows only if they are read. With edits, equal prompts are encoded once,
        and keys and values of the conditioning are computed once.

        Raises:
            UserError: for an empty batch, unknown blocks, heads or segments, unbound names of runs, edits of another
                model or of other steps, or passes or steps that the run does not have.
        """
        from workbench.plain_nnsight import save

        batch = self.plan(runs, settings, capture)
        clips = batch.rows
        calls: list[CallLabel] = []
        kept: dict[Site, list[torch.Tensor]] = defaultdict(list)
        velocities: dict[int, torch.Tensor] = {}
        table = ConditioningTable() if batch.edits else None
        inputs: dict[int, CallInputs] = {}
        started: set[int] = set()
        computed: list[int] = []
        finite: list[torch.Tensor] = []

        changes = VelocityEdits(batch.edits)

        def keep(site: Site, step: int, values: torch.Tensor) -> None:  # noqa: ARG001 - steps come in order
            kept[site].append(values)

        def is_known(clip: int, pass_name: str) -> bool:
            return table is not None and table.has(conditioning_key(clips[clip], pass_name))

        access = self.call_access(self._traced_denoiser())
        following = self._following(changes.apply) if changes else nullcontext()
        with following, torch.no_grad(), self.nn.trace(**self._pipeline_arguments(clips, settings)) as tracer:
            self._encode(clips, access, sharing=bool(batch.edits))
            for _ in tracer.iter[: settings.num_steps]:
                label = self.label_call(access.arguments(), len(clips))
                reads_velocities = label.step in velocity_steps
                rows = call_rows(
                    label, clips, batch.edits, started, reads_velocities, batch.only_read, is_known
                )
                started |= started_clips(label, batch.edits)
                calls.append(label)
                computed.append(len(rows.run))
                finite.append(access.finite_rows())
                if reads_velocities:
                    inputs[label.step] = cond_inputs(access, rows, clips, batch.requested)
                mask = access.row_mask(rows)
                access.choose_rows(rows, clips)
                if table is not None:
                    table.start_call(
                        conditionings(label, rows.run, clips), conditionings(label, rows.stored, clips)
                    )
                    if table.complete and not batch.embeds_conditioning:
                        access.skip_conditioning(len(rows.run))
                visit_call(access, rows, batch, capture, mask, sink or keep, table)
                if changes:
                    changes.read(rows, access.velocities())
                velocity = access.give_rows(rows, read=reads_velocities)
                if velocity is not None:
                    cond = [label.row(clip, "cond") for clip in batch.requested]
                    velocities[label.step] = velocity[cond]
            output = save(self.nn.output)
        latents = self._latents(output)
        finite.append(torch.isfinite(latents).flatten(1).all(dim=1))
        broke_at = _broke_at(calls, finite, clips)
        shared = shared_clips(clips, started)
        owners = [shared[row] for row in batch.requested]
        return Generation(
            latents=latents[list(batch.requested)],
            calls=calls,
            activations={site: torch.stack(values, dim=1) for site, values in kept.items()},
            velocities=velocities,
            inputs=inputs,
            rows=sum(computed),
            shared_with=tuple(map(owners.index, owners)),
            broke_at=tuple(broke_at[row] for row in batch.requested),
        )

    def plan(
        self, runs: Sequence[Clip | Run], settings: GenerationSettings, capture: Capture | None = None
    ) -> Batch:
        """Plan the batch that `generate_batch` computes for these runs; raise UserError as it does."""
        must_be(Sequence, runs, "A batch must be a list of clips or runs")
        must_be(GenerationSettings, settings, "Settings must be made by wb.GenerationSettings")
        self.check_settings(settings)
        for run in map(as_run, runs):
            for edit in run.nested_edits:
                self._check_edit(edit, settings)
        batch = plan_batch(runs)
        self._check(batch, settings, capture)
        return replace(batch, edits=self._placed(batch, settings))

    def _traced_denoiser(self) -> Any:
        """nnsight's view of the denoiser."""
        return self.nn.transformer

    def _placed(self, batch: Batch, settings: GenerationSettings) -> tuple[RowEdit, ...]:
        """Resolve the conditioning tokens of the batch's edits."""
        if all(edit.edit.window.segments is None for edit in batch.edits):
            return batch.edits
        places = self._conditionings(batch.rows, settings)
        n_tokens = batch_tokens(places)

        def placed(edit: RowEdit) -> RowEdit:
            names = edit.edit.window.segments
            if names is None:
                return edit
            counterpart = places[edit.sources[0] if edit.sources else edit.row]
            positions = segment_positions(names, places[edit.row], counterpart, n_tokens)
            return replace(edit, positions=tuple(positions))

        return tuple(map(placed, batch.edits))

    def _conditionings(self, clips: Sequence[Clip], settings: GenerationSettings) -> list[Conditioning]:
        """Return the spans of each clip's conditioning in a batch of these clips."""
        known: dict[tuple[str, str], Conditioning] = {}
        for clip in clips:
            if (clip.prompt, clip.lyrics) not in known:
                known[clip.prompt, clip.lyrics] = self.conditioning(clip, settings)
        return [known[clip.prompt, clip.lyrics] for clip in clips]

    def linearise(
        self,
        inputs: CallInputs,
        clip: int,
        sites: Sequence[Site],
        direction: Float[torch.Tensor, "frame latent_channel"] | None = None,
    ) -> Linearisation:
        """Repeat a call for one clip, and differentiate its velocity along a direction with respect to the sites.

        Without a direction only values are returned.
        """
        from workbench.engine.linearise import linearise
        from workbench.plain_nnsight import NNsight

        arguments = {
            name: value[clip : clip + 1] if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in inputs.arguments.items()
        }
        network = NNsight(self.denoiser)
        access = self.call_access(network)
        along = None if direction is None else lambda velocity: (velocity * direction).sum()
        mask = None if inputs.mask is None else inputs.mask[clip : clip + 1]
        return linearise(network, access, arguments, sites, along, mask)

    def call_at(self, clip: Clip, settings: GenerationSettings, step: int) -> NetworkCall:
        """Run the pipeline for a clip up to a step, with the denoiser as it is, and return the call of that step.

        Its arguments are those of the pipeline, without the workbench's edits and masks.
        """
        access, found = self.call_class, []

        def stop(_: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            arguments = named_arguments(access.argument_names, args, given)
            label = self.label_call(arguments, n_clips=1)
            if label.step == step:
                found.append(NetworkCall(arguments, label.passes, (access.latents, *access.times)))
                raise Reached

        hook = self.denoiser.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.pipeline(**self._pipeline_arguments([clip], settings))
        except Reached:
            return found[0]
        finally:
            hook.remove()
        raise ValueError(f"step {step} was not reached in {settings.num_steps} steps")

    def check_capture(self, capture: Capture, settings: GenerationSettings) -> None:
        """Raise UserError for sites, steps or passes that a generation with these settings does not have."""
        check_blocks([site.block for site in capture.sites], self.n_blocks)
        if not set(capture.passes) <= set(self.passes(settings)):
            raise UserError(
                f"Passes must be among {', '.join(self.passes(settings))} in this run; got "
                f"{', '.join(capture.passes)}. The null pass needs a guidance scale above 1 and a model without "
                "distilled guidance."
            )
        if any(not 0 <= step < settings.num_steps for step in capture.steps):
            raise UserError(
                f"Steps must be from 0 to {settings.num_steps - 1} in this run; got {list(capture.steps)}."
            )
        passes = self.step_passes(settings)
        guided = [step for step, names in enumerate(passes) if set(capture.passes) <= set(names)]
        lacking = sorted(set(capture.steps) - set(guided))
        if lacking:
            where = (
                f"guidance is on in steps {guided[0]} to {guided[-1]}"
                if guided
                else "no step has all of them"
            )
            raise UserError(
                f"Step {lacking[0]} runs only the {', '.join(passes[lacking[0]])} pass; {where}. "
                "Capture other steps or passes, or widen the guidance interval."
            )

    def _check(self, batch: Batch, settings: GenerationSettings, capture: Capture | None) -> None:
        if not batch.rows:
            raise UserError("The list of clips is empty. Give at least one clip.")
        for lyrics in {row.lyrics for row in batch.rows}:
            self.check_lyrics(lyrics)
        for edit in batch.edits:
            if OPERATORS[edit.edit.operator].alike:
                self._check_alike([batch.rows[source] for source in edit.sources], settings)
        if capture is not None:
            self.check_capture(capture, settings)

    def check_windows(self, runs: Sequence[Run], settings: GenerationSettings) -> None:
        """Raise UserError for runs with an edit, or reading from one with an edit, that cannot act anywhere."""
        edits = list(dict.fromkeys(edit for run in runs for edit in run.nested_edits))
        if not edits:
            return
        self.check_settings(settings)
        read = [run.clip for edit in edits for run in edit.runs]
        clips = [clip for clip in (*(run.clip for run in runs), *read) if isinstance(clip, Clip)]

        def n_tokens(site: Site) -> int:
            if not site.on_conditioning:
                return self.tokens_at(site, settings.duration)
            every = batch_tokens(self._conditionings(clips, settings))
            return len(range(every)[self.reads(site.block)])

        for edit in edits:
            self._check_edit(edit, settings)
        check_windows(edits, self.sigmas(settings), self.passes(settings), n_tokens)

    def _check_edit(self, edit: Edit, settings: GenerationSettings) -> None:
        """Raise UserError for an edit made on another model or for other steps, or that does not fit the sites."""
        if edit.made_on is not None and edit.made_on[1] != self.weights_hash:
            name, weights_hash = edit.made_on
            raise UserError(
                f"{edit.described} was made on {name} (weights {weights_hash}), "
                f"but this model is {self.name} (weights {self.weights_hash}). Make it again on this model."
            )
        check_steps(edit, self.sigmas(settings))
        check_blocks(sorted(edit.blocks), self.n_blocks)
        heads = edit.window.heads
        for site in edit.value_sites if edit.target == "weights" else ():
            module = self.linear(site)
            edit.parameters.check_weight(site, module.out_features, module.in_features)
        for site in edit.value_sites:
            if heads is not None and not all(0 <= head < self.heads(site.part) for head in heads):
                raise UserError(
                    f"{site} has heads 0 to {self.heads(site.part) - 1}, not {max(heads)} "
                    "(key and value heads are numbered separately; each is shared by several query heads)."
                )
            of_heads = None if heads is None else self.head_dim(site.block) * len(heads)
            n_tokens = (
                None
                if site.on_conditioning
                else _edited_tokens(edit, self.tokens_at(site, settings.duration))
            )
            edit.parameters.check_size(site, n_tokens, of_heads or self.channels(site))

    def _check_alike(self, clips: Sequence[Clip], settings: GenerationSettings) -> None:
        """Raise UserError for clips whose conditioning tokens are not at the same positions."""
        first, tokens = clips[0], [self.placed_tokens(clip, settings) for clip in clips]
        for clip, own in zip(clips, tokens, strict=True):
            names = f"Cannot blend {quoted(first.prompt)} and {quoted(clip.prompt)}: "
            lengths, others = ([len(part) for part in of] for of in (tokens[0], own))
            if lengths != others:
                raise UserError(
                    f"{names}with their lyrics they have {sum(lengths)} and {sum(others)} tokens. Use prompts with the "
                    "same number, word by word."
                )
            if any(itertools.starmap(out_of_place, zip(tokens[0], own, strict=True))):
                raise UserError(
                    f"{names}words that both have are not at the same tokens. Use prompts that differ only in words at "
                    "the same place."
                )


def _edited_tokens(edit: Edit, n_tokens: int) -> int:
    """Return how many of a site's tokens an edit changes."""
    first, last = edit.window.tokens or (0, n_tokens - 1)
    return max(0, min(last + 1, n_tokens) - first)


def _broke_at(
    calls: Sequence[CallLabel], finite: Sequence[Bool[torch.Tensor, "_rows"]], clips: Sequence[Row]
) -> tuple[int | None, ...]:
    """Return the step at which each clip's latents became NaN or infinite, or None.

    `finite` says for each row of every call whether its latents were finite before it, and finally for every clip.
    """
    if bool(finite[-1].all()):
        return (None,) * len(clips)
    before = [flags.tolist() for flags in finite]
    broken: list[int | None] = []
    for clip, spec in enumerate(clips):
        if spec.shadow_of is not None or before[-1][clip]:
            broken.append(None)
            continue
        later = [before[i + 1][calls[i + 1].row(clip, "cond")] for i in range(len(calls) - 1)] + [False]
        broken.append(next(call.step for call, is_finite in zip(calls, later, strict=True) if not is_finite))
    return tuple(broken)


def seeded_noise(clips: Sequence[Clip], shape: tuple[int, ...]) -> Float[torch.Tensor, "clip ..."]:
    """Draw standard normals of a shape for each clip from its own seed, so that a row does not depend on its batch."""
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(clip.seed)) for clip in clips]
    return torch.stack(draws)


def words_at_tokens(
    prompt: str, start: int, offsets: Sequence[tuple[int, int]], first: int
) -> tuple[tuple[str, int, int], ...]:
    """Return the words of a prompt with their spans of tokens (first, last + 1).

    The prompt begins at character `start` of the tokenised text; `offsets` are the character spans of the tokens, the
    first of which is token `first` of the conditioning.
    """
    # A token begins where the previous one ends: if a tokenizer rewrites its text, its start offsets may be wrong.
    ends = [0, *itertools.accumulate((end for _, end in offsets), max)]
    words = []
    for word in re.finditer(r"\S+", prompt):
        inside = [
            first + token
            for token, (begin, end) in enumerate(itertools.pairwise(ends))
            if begin < start + word.end() and end > start + word.start()
        ]
        if inside:  # a long prompt is truncated
            words.append((word.group(), inside[0], inside[-1] + 1))
    return tuple(words)
