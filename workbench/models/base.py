"""The base class of all models: a diffusers pipeline on nnsight's `DiffusionModel`, traced and edited."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float

from cache.errors import UserError
from cache.wording import quoted
from workbench.audio import not_finite
from workbench.engine.batch import Batch, plan_batch
from workbench.engine.edits import Edit, Run, all_edits, as_run
from workbench.engine.runs import CallInputs, Capture, Clip, Generation, Linearisation, Sink
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site, listed_sites, parse_sites
from workbench.engine.windows import check_segments
from workbench.freed_memory import keep_freed_memory
from workbench.models import unreachable_weights
from workbench.models.architecture import Architecture
from workbench.models.checks import check_batch, check_edit, check_runs
from workbench.models.folders import loading
from workbench.models.generated import GeneratedClip, GeneratedClips, generated_clips, labelled
from workbench.models.options import options_of
from workbench.models.placing import placed_edits
from workbench.models.running import run_batch
from workbench.models.sampling import Sampling
from workbench.provenance import weights_hash
from workbench.validation import must_be


class AudioDiffusionModel(Architecture):
    """A music diffusion model that can be run, traced and edited: a diffusers pipeline.

    The pipeline runs unchanged; nnsight reads and writes its denoiser. A subclass, one for each architecture, defines
    what `Architecture` lists.
    """

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
        if device == "cpu":
            keep_freed_memory()
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
        check_runs(self, runs, settings)
        check_segments(self.plan(runs, settings).edits)
        generation = self.generate_batch(runs, settings, capture=wanted)
        audio = self.decode(generation.latents, settings.duration).float().cpu().numpy()
        for clip, step, samples in zip(asked, generation.broke_at, audio, strict=True):
            if step is not None or not np.isfinite(samples).all():
                raise UserError(
                    not_finite(f"The clip {quoted(clip.prompt)}", step, self.dtype, bool(of_each))
                )
        kept = labelled(self, asked, settings, generation, wanted)
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

    def generate_batch(
        self,
        runs: Sequence[Clip | Run],
        settings: GenerationSettings,
        capture: Capture | None = None,
        sink: Sink | None = None,
        velocity_steps: Sequence[int] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Generation:
        """Generate all runs as one batch, with their edits; captured values are passed to the sink, if there is one.

        Runs that edits read from need not be among `runs`: they become additional rows of the batch. Rows that equal
        another one are computed once, and shadows only if they are read. With edits, equal prompts are encoded once,
        and keys and values of the conditioning are computed once. `progress` is called before each step with its index
        and the number of steps; what it raises ends the generation.

        Raises:
            UserError: for an empty batch, unknown blocks, heads or segments, unbound names of runs, edits of another
                model or of other steps, or passes or steps that the run does not have.
        """
        batch = self.plan(runs, settings, capture)
        return run_batch(self, batch, settings, capture, sink, velocity_steps, progress)

    def plan(
        self, runs: Sequence[Clip | Run], settings: GenerationSettings, capture: Capture | None = None
    ) -> Batch:
        """Plan the batch that `generate_batch` computes for these runs; raise UserError as it does."""
        must_be(Sequence, runs, "A batch must be a list of clips or runs")
        must_be(GenerationSettings, settings, "Settings must be made by wb.GenerationSettings")
        self.check_settings(settings)
        sigmas = self.sigmas(settings)
        for run in map(as_run, runs):
            for edit in run.nested_edits:
                check_edit(self, edit, settings, sigmas)
        batch = plan_batch(runs)
        check_batch(self, batch, settings, capture)
        return replace(batch, edits=placed_edits(self, batch, settings))

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
