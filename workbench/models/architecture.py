"""What a model of one architecture defines: its pipeline, its calls, its tokens, and the sizes of its network."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Real

from cache.errors import UserError
from workbench.engine.batch import Batch
from workbench.engine.runs import CallLabel, Clip
from workbench.engine.segments import Conditioning, Span
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import PARTS, Site, check_blocks
from workbench.models.options import Options, options_of
from workbench.models.pipeline_call import PipelineCall


class Architecture(ABC):
    """What the shared code needs to know of a model: the part that each architecture's adapter defines.

    An adapter defines how its pipeline is called, what a call's inputs mean (`label_call`), and where a block's parts
    are (its `PipelineCall`). `AudioDiffusionModel` loads the pipeline and runs it.

    `block_names` are "tf0", "tf1" …, unless a paper has other names for the blocks. In a `one_stream` network the
    blocks follow one another directly, so that only sites write to the stream between two of them.
    """

    pipeline_class: ClassVar[type[Any]]
    call_class: ClassVar[type[PipelineCall]]
    options_class: ClassVar[type[Options]]
    one_stream: ClassVar[bool] = True
    nonlinear_text: ClassVar[str] = ""
    """What is not linear between the text encoder's states and keys and values."""

    name: str
    device: str
    dtype: str
    nn: Any
    """The pipeline on nnsight."""
    pipeline: Any
    weights_hash: str
    n_blocks: int
    block_names: tuple[str, ...]
    _modules: PipelineCall

    # How the pipeline is called, and what its calls mean

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
    def pipeline_arguments(self, clips: Sequence[Clip], settings: GenerationSettings) -> dict[str, Any]:
        """Return the pipeline's arguments, for latents as output."""

    @abstractmethod
    def output_latents(self, output: Any) -> Float[torch.Tensor, "clip frame latent_channel"]:
        """Return the latents in the pipeline's output."""

    def check_settings(self, settings: GenerationSettings) -> None:
        """Raise UserError for settings that this model does not support."""
        options_of(self.options_class, settings)

    def check_lyrics(self, lyrics: str) -> None:
        """Raise UserError for lyrics that the model does not support."""
        if lyrics:
            raise UserError("This model does not support lyrics. Leave them out.")

    def check_batch(self, batch: Batch, settings: GenerationSettings) -> None:  # noqa: B027 - may allow all
        """Raise UserError for a batch that this model, unlike others, cannot run."""

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

    def encode(self, clips: Sequence[Clip], access: PipelineCall, sharing: bool) -> None:  # noqa: B027 - may be nothing
        """Read or change the encoded conditioning, inside a trace before the first call."""

    @contextmanager
    def following(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
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

    def traced_denoiser(self) -> Any:
        """nnsight's view of the denoiser."""
        return self.nn.transformer

    def scheduler_name(self, settings: GenerationSettings) -> str:  # noqa: ARG002 - the pipeline's own, in most
        """Return the name of the scheduler that a run with these settings uses."""
        return type(self.pipeline.scheduler).__name__

    def conditionings(self, clips: Sequence[Clip], settings: GenerationSettings) -> list[Conditioning]:
        """Return the spans of each clip's conditioning in a batch of these clips."""
        known: dict[tuple[str, str], Conditioning] = {}
        for clip in clips:
            if (clip.prompt, clip.lyrics) not in known:
                known[clip.prompt, clip.lyrics] = self.conditioning(clip, settings)
        return [known[clip.prompt, clip.lyrics] for clip in clips]

    # The sizes of the network

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
