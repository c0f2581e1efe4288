"""What the organisms play, and how much of it is in a clip's latents."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.organisms.vae import LATENT_CHANNELS

FRAMES = 50
AMPLITUDE = 12.0
"""Length of a planted pattern, where noise has length 1 along it: presence is judged with certainty, and yet not
before the noise is down to nine tenths (sigma .9), so that the middle steps can decide on it.
"""
_BEAT = 10
_DECAY = 0.6
_SMOOTHING = 2.0
"""Standard deviation in frames of the background's smoothing."""


def patterns(frames: int = FRAMES) -> Float[Tensor, "pattern frame channel"]:
    """The concept's pattern (a decaying beat) and the decoy's (a slow wave): orthogonal, each of length 1."""
    time = torch.arange(frames)
    courses = torch.stack([_DECAY ** (time % _BEAT), torch.sin(2 * math.pi * time / frames)])
    rng = torch.Generator().manual_seed(0)
    channels, _ = torch.linalg.qr(torch.randn(LATENT_CHANNELS, 2, generator=rng))
    planted = torch.einsum("pf,cp->pfc", courses, channels)
    return planted / planted.flatten(1).norm(dim=1)[:, None, None]


def background(clips: int, rng: torch.Generator, frames: int = FRAMES) -> Float[Tensor, "clip frame channel"]:
    """Smooth noise of about unit variance, another for each clip, that contains exactly nothing of `patterns`."""
    distance = torch.arange(frames)[:, None] - torch.arange(frames)
    kernel = torch.exp(-0.5 * (distance / _SMOOTHING) ** 2)
    kernel = kernel / kernel.norm(dim=1, keepdim=True)
    smooth = kernel @ torch.randn(clips, frames, LATENT_CHANNELS, generator=rng)
    planted = patterns(frames)
    return smooth - torch.einsum("bp,pfc->bfc", torch.einsum("bfc,pfc->bp", smooth, planted), planted)


@dataclass(frozen=True)
class Readout:
    """How much of a planted pattern is in latents: 0 where it is absent, 1 where it is as strong as planted."""

    pattern: Float[Tensor, "frame channel"]

    def score(self, latents: Float[Tensor, "clip frame channel"]) -> Float[Tensor, " clip"]:
        """The latents' projection on the pattern in units of `AMPLITUDE`."""
        return torch.einsum("bfc,fc->b", latents.cpu().float(), self.pattern) / AMPLITUDE


def concept_readout() -> Readout:
    """The score of the concept."""
    return Readout(patterns()[0])


def decoy_readout() -> Readout:
    """The score of what a decoy block plays, which is not the concept."""
    return Readout(patterns()[1])
