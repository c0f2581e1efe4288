"""The patterns planted in the music, and how strongly a clip's latents contain them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.organisms.vae import LATENT_CHANNELS

FRAMES = 50
AMPLITUDE = 12.0
"""Norm of a planted pattern, along which noise has norm 1: presence can be measured with certainty, but not before
the noise is down to nine tenths (sigma .9), so that the middle steps can decide on it.
"""
_BEAT = 10
_DECAY = 0.6
_SMOOTHING = 2.0
"""Standard deviation in frames of the background's smoothing."""


def patterns(frames: int = FRAMES) -> Float[Tensor, "pattern frame channel"]:
    """Return the concept's pattern (a decaying beat) and the decoy's (a slow wave): orthogonal, each of norm 1."""
    time = torch.arange(frames)
    courses = torch.stack([_DECAY ** (time % _BEAT), torch.sin(2 * math.pi * time / frames)])
    rng = torch.Generator().manual_seed(0)
    channels, _ = torch.linalg.qr(torch.randn(LATENT_CHANNELS, 2, generator=rng))
    planted = torch.einsum("pf,cp->pfc", courses, channels)
    return planted / planted.flatten(1).norm(dim=1)[:, None, None]


def background(clips: int, rng: torch.Generator, frames: int = FRAMES) -> Float[Tensor, "clip frame channel"]:
    """Return smooth noise of about unit variance for each clip, orthogonal to `patterns`."""
    distance = torch.arange(frames)[:, None] - torch.arange(frames)
    kernel = torch.exp(-0.5 * (distance / _SMOOTHING) ** 2)
    kernel = kernel / kernel.norm(dim=1, keepdim=True)
    smooth = kernel @ torch.randn(clips, frames, LATENT_CHANNELS, generator=rng)
    planted = patterns(frames)
    return smooth - torch.einsum("bp,pfc->bfc", torch.einsum("bfc,pfc->bp", smooth, planted), planted)


@dataclass(frozen=True)
class Readout:
    """Measures how much of a planted pattern latents contain: 0 if it is absent, 1 if it is as strong as planted."""

    pattern: Float[Tensor, "frame channel"]

    def score(self, latents: Float[Tensor, "clip frame channel"]) -> Float[Tensor, " clip"]:
        """Return the latents' projection on the pattern in units of `AMPLITUDE`."""
        return torch.einsum("bfc,fc->b", latents.cpu().float(), self.pattern) / AMPLITUDE


def concept_readout() -> Readout:
    """Return the readout of the concept's pattern."""
    return Readout(patterns()[0])


def decoy_readout() -> Readout:
    """Return the readout of the decoy's pattern, which is not the concept."""
    return Readout(patterns()[1])
