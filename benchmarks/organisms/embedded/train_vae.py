"""Training of the autoencoder: from the lapped transform to one that loses no concept."""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from jaxtyping import Float
from rich.progress import track
from torch import Tensor, nn

from benchmarks.organisms.checkpoint import load_checkpoint, restoring, save_checkpoint
from benchmarks.organisms.optimise import cosine, descend, make_optimiser
from benchmarks.organisms.synth import FRAME, dataset
from benchmarks.organisms.vae import (
    LATENT_CHANNELS,
    FastCodec,
    dense_weight,
    initialise_vae,
    load_vae,
    plain_vae,
    set_weight,
)

_LOG = logging.getLogger(__name__)
VAE = "vae"
"""Name of the autoencoder's folder, and of its checkpoint, where organisms are trained."""
_STFT_SIZES = (2048, 1024, 512, 128)
_NORM_EPS = 1e-5


@dataclass(frozen=True)
class VaeRecipe:
    """Settings of the autoencoder's training."""

    steps: int = 1400
    batch: int = 16
    crop_frames: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    waveform_weight: float = 10.0
    noise: float = 0.25
    """Largest standard deviation of the noise added to the latents: the decoder must bear a denoiser's small
    errors.
    """
    pca_clips: int = 1500
    checkpoint_every: int = 100


def crops(
    rng: np.random.Generator, seed: int, first: int, recipe: VaeRecipe
) -> Float[Tensor, "clip 1 sample"]:
    """A batch of excerpts on the frame grid of fresh clips, at random levels; one in fifty is silence."""
    clips, _ = dataset(recipe.batch, seed, first)
    length = recipe.crop_frames * FRAME
    starts = FRAME * rng.integers(0, (clips.shape[1] - length) // FRAME + 1, recipe.batch)
    gains = 10 ** (rng.uniform(-3, 1, recipe.batch) / 20) * (rng.random(recipe.batch) >= 0.02)
    cut = [
        gain * clip[start : start + length] for clip, start, gain in zip(clips, starts, gains, strict=True)
    ]
    return torch.from_numpy(np.stack(cut).astype(np.float32))[:, None]


def _magnitude(audio: Float[Tensor, "clip sample"], size: int) -> Float[Tensor, "clip bin frame"]:
    window = torch.hann_window(size, device=audio.device)
    return torch.stft(audio, size, size // 4, window=window, return_complex=True).abs()


def reconstruction_loss(
    output: Float[Tensor, "clip 1 sample"], target: Float[Tensor, "clip 1 sample"], waveform_weight: float
) -> Float[Tensor, ""]:
    """Multi-resolution spectral loss (Yamamoto et al. 2020: log magnitude and spectral convergence) plus L1
    on the waveform.
    """
    spectral = torch.zeros((), device=target.device)
    for size in _STFT_SIZES:
        ours, theirs = _magnitude(output[:, 0], size), _magnitude(target[:, 0], size)
        log_distance = (torch.log(ours + 1e-2) - torch.log(theirs + 1e-2)).abs().mean()
        convergence = (ours - theirs).norm() / (theirs.norm() + 1e-3)
        spectral = spectral + log_distance + convergence
    return spectral / len(_STFT_SIZES) + waveform_weight * (output - target).abs().mean()


@torch.no_grad()
def _fold_normalisation(vae: AutoencoderOobleck, norm: nn.BatchNorm1d) -> None:
    """Move the running normalisation of the latents into the encoder's last convolution."""
    statistics = norm.state_dict()
    mean, deviation = statistics["running_mean"], (statistics["running_var"] + _NORM_EPS).sqrt()
    last = vae.encoder.conv2
    weight, bias = dense_weight(last).clone(), last.bias.clone()
    weight[:LATENT_CHANNELS] /= deviation[:, None, None]
    bias[:LATENT_CHANNELS] = (bias[:LATENT_CHANNELS] - mean) / deviation
    weight[LATENT_CHANNELS:] = 0
    set_weight(last, weight, bias)


def train_vae(out: Path, recipe: VaeRecipe, seed: int, device: torch.device) -> AutoencoderOobleck:
    """Train an autoencoder and save it in ``out/vae``; if that exists, load it.

    An interrupted training continues from ``out/vae.pt``. All randomness of a step follows from `seed` and
    the step's number, so that a continued training equals an uninterrupted one.
    """
    if (out / VAE).exists():
        return load_vae(out / VAE).to(device)
    checkpoint = out / f"{VAE}.pt"
    state = load_checkpoint(checkpoint, device)
    vae = plain_vae(seed)
    if state is None:
        clips, _ = dataset(recipe.pca_clips, seed)
        initialise_vae(vae, clips)
    vae.to(device).train()
    norm = nn.BatchNorm1d(LATENT_CHANNELS, eps=_NORM_EPS, affine=False, momentum=0.02).to(device)
    optimiser = make_optimiser(vae)
    first = 0
    if state is not None:
        with restoring(checkpoint):
            vae.load_state_dict(state["vae"])
            norm.load_state_dict(state["norm"])
            optimiser.load_state_dict(state["optimiser"])
            first = int(state["step"])
    codec = FastCodec(vae)
    for step in track(range(first, recipe.steps), description="autoencoder"):
        rng = np.random.default_rng((seed, 1, step))
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        audio = crops(rng, seed, recipe.pca_clips + step * recipe.batch, recipe).to(device)
        latents = norm(codec.encode(audio))
        level = recipe.noise * torch.rand(len(latents), 1, 1, generator=noise_rng)
        noise = level * torch.randn(latents.shape, generator=noise_rng)
        loss = reconstruction_loss(codec.decode(latents + noise.to(device)), audio, recipe.waveform_weight)
        descend(optimiser, loss, recipe.learning_rate * cosine(step, recipe.steps, recipe.warmup))
        if (step + 1) % recipe.checkpoint_every == 0:
            _LOG.info("autoencoder step %d of %d: loss %.4f", step + 1, recipe.steps, loss.item())
            save_checkpoint(
                checkpoint,
                {
                    "vae": vae.state_dict(),
                    "norm": norm.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
    _fold_normalisation(vae, norm)
    partial = Path(
        tempfile.mkdtemp(prefix=".part-", dir=out)
    )  # half a folder would be taken for an autoencoder
    partial.chmod(0o755)
    vae.eval().save_pretrained(partial)
    os.replace(partial, out / VAE)
    return vae
