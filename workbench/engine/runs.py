"""Inputs and outputs of a generation: settings, clips, call labels, captures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict

from cache.errors import UserError
from workbench.engine.sites import Site
from workbench.seeds import LARGEST_SEED
from workbench.validation import must_be


@dataclass(frozen=True)
class Clip:
    """A clip to generate: prompt, lyrics, and the seed of its initial noise.

    Raises:
        UserError: if the prompt is empty, the seed is not a whole number from 0 to 2⁶⁴ - 1, or prompt or lyrics are not
            text.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    prompt: str
    seed: int
    lyrics: str = ""

    def __post_init__(self) -> None:
        must_be(str, self.prompt, "A clip's prompt must be text")
        must_be(str, self.lyrics, "A clip's lyrics must be text")
        if not self.prompt.strip():
            raise UserError("A clip's prompt must not be empty.")
        if isinstance(self.seed, np.integer):
            object.__setattr__(self, "seed", int(self.seed))
        if type(self.seed) is not int or not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"A seed must be a whole number from 0 to {LARGEST_SEED}; got {self.seed!r}.")


@dataclass(frozen=True)
class CallLabel:
    """Label of a denoiser call: step index, sigma, and the clip (row of the request) and pass of each batch row."""

    step: int
    sigma: float
    clips: tuple[int, ...]
    passes: tuple[str, ...]

    @cached_property
    def distinct_passes(self) -> tuple[str, ...]:
        """The passes of its rows, each once."""
        return tuple(dict.fromkeys(self.passes))

    @cached_property
    def _rows(self) -> dict[tuple[int, str], int]:
        return {place: row for row, place in enumerate(zip(self.clips, self.passes, strict=True))}

    def row(self, clip: int, pass_name: str) -> int:
        """Return the batch row of this pass of this clip; raise KeyError if the call does not run it."""
        return self._rows[clip, pass_name]


@dataclass(frozen=True)
class Capture:
    """The activations of a run to capture: sites, step indices, passes."""

    sites: tuple[Site, ...]
    steps: tuple[int, ...]
    passes: tuple[str, ...]


Sink = Callable[[Site, int, Float[torch.Tensor, "clip pass token channel"]], None]
"""Called with the captured values of a site at a step index, on the model's device, as soon as they are computed."""


@dataclass(frozen=True)
class CallInputs:
    """Inputs of one call in the cond pass, one row per clip, and a mask of the conditioning tokens visible to each."""

    arguments: dict[str, Any]
    mask: Bool[torch.Tensor, "clip token"] | None


@dataclass
class Generation:
    """The output of a generation: latents (clip, frame, channel), call labels, and captured activations by site.

    Activations passed to a sink are not included. For each requested step, `velocities` has the network's prediction
    in the cond pass, and `inputs` what is needed to repeat that call (see `linearise`). `rows` is the number of
    computed rows over all calls. `shared_with` is, for each clip, the first clip that was the same row throughout.
    `broke_at` is the step at which a clip's latents became NaN or infinite, or None.
    """

    latents: Float[torch.Tensor, "clip frame latent_channel"]
    calls: list[CallLabel]
    activations: dict[Site, Float[torch.Tensor, "clip step pass token channel"]] = field(default_factory=dict)
    velocities: dict[int, Float[torch.Tensor, "clip frame latent_channel"]] = field(default_factory=dict)
    inputs: dict[int, "CallInputs"] = field(default_factory=dict)
    rows: int = 0
    shared_with: tuple[int, ...] = ()
    broke_at: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Linearisation:
    """A linearised call: values and gradients at sites, by row of the call, and the network's output."""

    values: dict[Site, Float[torch.Tensor, "_row _token _channel"]]
    gradients: dict[Site, Float[torch.Tensor, "_row _token _channel"]]
    output: Float[torch.Tensor, "row frame latent_channel"]
