"""The autoencoder: a lapped transform to begin with, and a fast path that computes the same function."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderOobleck

from benchmarks.organisms.embedded.train_vae import VaeRecipe, crops, reconstruction_loss
from benchmarks.organisms.synth import FRAME, dataset
from benchmarks.organisms.vae import (
    LATENT_CHANNELS,
    FastCodec,
    dense_weight,
    initialise_vae,
    lapped_pca,
    plain_vae,
)
from tests.tolerances import assert_close


@pytest.fixture(scope="module")
def initialised() -> AutoencoderOobleck:
    vae = plain_vae(seed=0)
    initialise_vae(vae, dataset(60, seed=1)[0])
    return vae.eval()


@pytest.fixture(scope="module")
def perturbed(initialised: AutoencoderOobleck) -> AutoencoderOobleck:
    """As if trained: every parameter that may change has changed."""
    vae = plain_vae(seed=0)
    vae.load_state_dict(initialised.state_dict())
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vae.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    return vae.eval()


def test_the_initial_autoencoder_already_reconstructs(initialised: AutoencoderOobleck) -> None:
    audio = torch.from_numpy(dataset(10, seed=77)[0])[:, None]
    codec = FastCodec(initialised)
    with torch.no_grad():
        latents = codec.encode(audio)
        copy = codec.decode(latents)
    assert latents.shape == (10, LATENT_CHANNELS, 100)
    noise_share = (audio - copy).square().sum() / audio.square().sum()
    assert -10 * torch.log10(noise_share) > 7.0  # 8.3 dB measured
    assert 0.9 < latents.std() < 1.1


def test_all_components_together_reconstruct_perfectly() -> None:
    clips = np.random.default_rng(0).standard_normal((20, 64_000)).astype(np.float32)
    analysis, synthesis = lapped_pca(clips, 2 * FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(clips[0], 2 * FRAME)[::FRAME].astype(np.float64)
    rebuilt = np.zeros(clips.shape[1])
    kept = analysis.astype(np.float64) @ synthesis.astype(np.float64)
    for number, frame in enumerate(frames):
        rebuilt[number * FRAME : (number + 2) * FRAME] += frame @ kept
    inside = slice(FRAME, -FRAME)
    np.testing.assert_allclose(rebuilt[inside], clips[0][inside], atol=1e-2)


def test_the_fast_path_is_the_stock_path(perturbed: AutoencoderOobleck) -> None:
    audio = torch.from_numpy(dataset(2, seed=5)[0])[:, None, : 20 * FRAME]
    codec = FastCodec(perturbed)
    with torch.no_grad():
        latents = codec.encode(audio)
        stock = perturbed.encode(audio).latent_dist.mode()
        assert_close(latents, stock)
        assert latents.std() > 0.1
        assert_close(codec.decode(latents), perturbed.decode(latents).sample)


def test_gradients_reach_everything_that_is_trained(perturbed: AutoencoderOobleck) -> None:
    audio = torch.from_numpy(dataset(1, seed=5)[0])[:, None, : 10 * FRAME]
    codec = FastCodec(perturbed)
    perturbed.zero_grad()
    codec.decode(codec.encode(audio)).square().sum().backward()
    without = [n for n, p in perturbed.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_fixed_convolutions_are_impulses(perturbed: AutoencoderOobleck) -> None:
    weight = dense_weight(perturbed.encoder.conv1)
    assert weight[0, 0].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert not weight[1:].any()


def test_crops_start_on_frames_and_follow_from_their_seeds() -> None:
    recipe = VaeRecipe(batch=4, crop_frames=10)
    batch = crops(np.random.default_rng(1), 0, 40, recipe)
    torch.testing.assert_close(batch, crops(np.random.default_rng(1), 0, 40, recipe), rtol=0, atol=0)
    clips, _ = dataset(4, 0, 40)
    for excerpt, clip in zip(batch[:, 0].numpy(), clips, strict=True):
        matches = [
            abs(np.corrcoef(excerpt, clip[start : start + 10 * FRAME])[0, 1])
            for start in range(0, 90 * FRAME + 1, FRAME)
        ]
        assert max(matches) > 0.9999


def test_the_loss_is_zero_for_a_perfect_copy_and_counts_silence_and_noise() -> None:
    audio = torch.from_numpy(dataset(2, seed=5)[0])[:, None, : 20 * FRAME]
    assert reconstruction_loss(audio, audio, 10.0) == 0
    quiet, loud = reconstruction_loss(0.5 * audio, audio, 10.0), reconstruction_loss(0 * audio, audio, 10.0)
    assert 0 < quiet < loud
