"""What every architecture offers to the rest of the workbench."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict

from workbench.engine.sites import Site


@dataclass(frozen=True)
class Clip:
    """One generated piece of audio: prompt, lyrics, and the seed of its initial noise."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    prompt: str
    seed: int
    lyrics: str = ""


@dataclass(frozen=True)
class CallLabel:
    """One run of the denoiser: step index, sigma, and for each batch row its clip (row of the request) and pass."""

    step: int
    sigma: float
    clips: tuple[int, ...]
    passes: tuple[str, ...]

    def row(self, clip: int, pass_name: str) -> int:
        """Batch row that holds this pass of this clip; raises KeyError when the call does not run it."""
        for row, (row_clip, row_pass) in enumerate(zip(self.clips, self.passes, strict=True)):
            if (row_clip, row_pass) == (clip, pass_name):
                return row
        raise KeyError((clip, pass_name))


@dataclass(frozen=True)
class Capture:
    """What to keep of a run: sites, step indices, passes."""

    sites: tuple[Site, ...]
    steps: tuple[int, ...]
    passes: tuple[str, ...]


Sink = Callable[[Site, int, Float[torch.Tensor, "clip pass token channel"]], None]
"""Takes the captured values of a site at a step index, as soon as they are there, on the model's device."""


@dataclass(frozen=True)
class CallInputs:
    """Inputs of one call in the cond pass, a row for each clip, and which conditioning tokens each row may see."""

    arguments: dict[str, Any]
    mask: Bool[torch.Tensor, "clip token"] | None


@dataclass
class Generation:
    """What a run gives: latents (clip, frame, channel), the calls' labels, and the captured activations by site.

    Activations that went to a sink are not in it. For each step asked for, `velocities` has what the network predicted
    in the cond pass, and `inputs` what repeats that call (see `linearise`). `rows` counts the rows of denoiser calls
    that were computed. `shared_with` tells for each clip the first one that was one computed row with it all along:
    they are the same clip by construction, and not because they came out alike. `broke_at` tells the step that made a
    clip's latents NaN or infinite, None where they are finite.
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
    """A call linearised: values and gradients at sites, by row of the call, and the network's output."""

    values: dict[Site, Float[torch.Tensor, "_row _token _channel"]]
    gradients: dict[Site, Float[torch.Tensor, "_row _token _channel"]]
    output: Float[torch.Tensor, "row frame latent_channel"]
