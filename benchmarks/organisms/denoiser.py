"""The small stock denoiser of an organism, prepared for planting a circuit, and its training error."""

import torch
from diffusers import AceStepTransformer1DModel
from jaxtyping import Float
from torch import Tensor

from benchmarks.organisms.text import TEXT_CHANNELS
from benchmarks.organisms.vae import LATENT_CHANNELS


def make_denoiser(
    seed: int, *, blocks: int, heads: int, head_dim: int, mlp_channels: int
) -> AceStepTransformer1DModel:
    """Return a denoiser that embeds the conditioning by the identity, and whose initial outputs are small.

    Its rotary base suits clips of seconds, not of minutes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = AceStepTransformer1DModel(
            hidden_size=heads * head_dim,
            intermediate_size=mlp_channels,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            head_dim=head_dim,
            in_channels=3 * LATENT_CHANNELS,
            audio_acoustic_hidden_dim=LATENT_CHANNELS,
            patch_size=2,
            sliding_window=8,
            rope_theta=100.0,
            encoder_hidden_size=TEXT_CHANNELS,
            model_version="organism",
        )
    fix_condition_embedder(denoiser)
    with torch.no_grad():
        denoiser.proj_out_conv.weight.mul_(0.1)
    return denoiser


@torch.no_grad()
def fix_condition_embedder(denoiser: AceStepTransformer1DModel) -> None:
    """Set the embedding of the conditioning to the identity and freeze it, so that subspaces stay channels."""
    embedder = denoiser.condition_embedder
    embedder.weight.copy_(torch.eye(embedder.weight.shape[0], TEXT_CHANNELS))
    embedder.bias.zero_()
    embedder.requires_grad_(False)


def velocity_error(
    denoiser: AceStepTransformer1DModel,
    clean: Float[Tensor, "clip frame channel"],
    noise: Float[Tensor, "clip frame channel"],
    time: Float[Tensor, " clip"],
    conditioning: Float[Tensor, "clip token text_channel"],
    context: Float[Tensor, "1 frame context_channel"],
) -> Float[Tensor, "clip frame channel"]:
    """Return predicted velocity - (noise - clean), at `time * noise + (1 - time) * clean` (Lipman et al. 2023)."""
    at = time[:, None, None]
    noisy = at * noise + (1 - at) * clean
    context = context.expand(len(noisy), -1, -1)
    velocity = denoiser(noisy, time, time, conditioning, context, return_dict=False)[0]
    return velocity - (noise - clean)
