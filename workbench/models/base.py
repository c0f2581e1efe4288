"""What every architecture offers to the rest of the workbench."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float

from workbench.engine.edits import Intervention
from workbench.engine.runs import (
    CallInputs,
    Capture,
    Clip,
    Generation,
    GenerationSettings,
    Linearisation,
    Sink,
)
from workbench.engine.sites import Site


@runtime_checkable
class AudioDiffusionModel(Protocol):
    """A music diffusion model that can be listened to, traced and intervened on.

    `block_names` are what people call the blocks: "tf0", "tf1" …, unless a paper has other names for them. In a network
    of `one_stream` the blocks follow one another directly, so that all that is written between two of them are sites.
    """

    name: str
    n_blocks: int
    block_names: tuple[str, ...]
    one_stream: bool
    weights_hash: str
    device: str

    @property
    def sample_rate(self) -> int:
        """Samples per second of the decoded audio."""
        ...

    @property
    def denoiser(self) -> torch.nn.Module:
        """The network that is run once a step."""
        ...

    def sites(self) -> list[Site]:
        """Every site, in order of computation."""
        ...

    def channels(self, site: Site) -> int:
        """Width of the site's last axis; bytes per token are this times the item size."""
        ...

    def tokens(self, duration: float) -> int:
        """Number of latent-time tokens of a clip of `duration` seconds."""
        ...

    @property
    def token_seconds(self) -> float:
        """Seconds of music per token."""
        ...

    def tokens_at(self, site: Site, duration: float) -> int:
        """Tokens of a site: `tokens`, or fewer in a network whose blocks see the music at several resolutions."""
        ...

    def token_seconds_at(self, site: Site) -> float:
        """Seconds of music per token of a site: `token_seconds`, or more where it has fewer tokens."""
        ...

    def passes(self, settings: GenerationSettings) -> tuple[str, ...]:
        """Passes that a generation with these settings runs, such as ("cond",) or ("cond", "null")."""
        ...

    def sigmas(self, settings: GenerationSettings) -> list[float]:
        """Sigma of each step."""
        ...

    def segments(self, clip: Clip, settings: GenerationSettings) -> dict[str, tuple[int, int]]:
        """Spans (first, last + 1) of the conditioning tokens, such as lyrics, timbre and text."""
        ...

    def encoded_tokens(self, clip: Clip, settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:
        """The tokens that each of the model's encoders reads of a clip's prompt and lyrics, cut at its limit."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """Words of a text that the model's vocabulary does not have."""
        ...

    def reads(self, block: int) -> slice:
        """Which of the conditioning's tokens, as `segments` counts them, the block's cross-attention reads."""
        ...

    def head_dim(self, block: int) -> int:
        """Channels of a head in a block's attentions."""
        ...

    def heads(self, part: str) -> int:
        """Heads of an attention part: key and value heads at `k` and `v`, else query heads."""
        ...

    def check_settings(self, settings: GenerationSettings) -> None:
        """Raise UserError for settings that this model does not have."""
        ...

    def check_lyrics(self, lyrics: str) -> None:
        """Raise UserError for lyrics that the model cannot sing."""
        ...

    def step_passes(self, settings: GenerationSettings) -> list[tuple[str, ...]]:
        """Guidance passes of each step."""
        ...

    def guided_throughout(self, settings: GenerationSettings) -> GenerationSettings:
        """The same settings, with all passes in every step."""
        ...

    def step_sizes(self, settings: GenerationSettings) -> list[float]:
        """How far each step moves the latents for a change of the network's output, up to a common factor."""
        ...

    def check_capture(self, capture: Capture, settings: GenerationSettings) -> None:
        """Raise UserError for sites, steps or passes that a generation with these settings does not have."""
        ...

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

        Interventions are `Intervention`s on the rows of `clips`; at `velocity_steps` the velocities are kept.
        """
        ...

    def positions(
        self, clips: Sequence[Clip], settings: GenerationSettings, interventions: Sequence[Intervention]
    ) -> list[tuple[int, ...] | None]:
        """Conditioning tokens that each intervention is limited to; None for all."""
        ...

    def linearise(
        self,
        inputs: CallInputs,
        clip: int,
        sites: Sequence[Site],
        direction: Float[torch.Tensor, "frame latent_channel"] | None = None,
    ) -> Linearisation:
        """Repeat a call for one clip, and differentiate its velocity along a direction at the sites."""
        ...

    def decode(
        self, latents: Float[torch.Tensor, "clip frame latent_channel"], duration: float | None = None
    ) -> Float[torch.Tensor, "clip channel sample"]:
        """Latents to audio at `sample_rate`, as the pipeline makes it.

        It is cut to `duration` seconds where the latents hold more than the clip; None keeps all.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Name, source, weights hash, device and dtype: what provenance records."""
        ...
