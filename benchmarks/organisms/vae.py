"""A stock `AutoencoderOobleck` initialised as a lapped transform, and a fast path that computes the same function.

Trained from random weights the autoencoder needs hours on a processor. Its weights are therefore set in
closed form: encoder and decoder become the analysis and synthesis halves of a lapped transform whose basis is
the principal components of sine-windowed, pre-emphasised frames of music (Malvar, *Signal Processing with
Lapped Transforms*, 1992: the window squared and its shift by one hop add to one, so that overlapping frames
add up to the signal). Training then only has to improve on it.

What runs at the full sample rate is kept linear and trivial throughout training: the first and last convolutions are
unit impulses and the residual units there add nothing. That is what makes the fast path exact, and cheap.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderOobleck
from jaxtyping import Float
from torch import Tensor

from benchmarks.organisms.synth import FRAME, SAMPLE_RATE
from cache.errors import UserError
from workbench.models.folders import loading

LATENT_CHANNELS = 32
RATIOS = (16, 4, 10)
"""Downsampling of the three encoder blocks; their product is `FRAME`."""
ENCODER_UNITS = (0, 0, 1)
"""Residual units in use in each encoder block; the others add exactly nothing."""
DECODER_UNITS = (3, 1, 0)
"""Residual units in use in each decoder block."""

_EMPHASIS_HZ = 2000.0  # higher frequencies weigh more, so that weak high partials get components too
_LINEAR = -12.0  # log alpha at which a Snake's bend is below float32 resolution
_NEARLY_LINEAR = -5.0  # log alpha at which it is small but trainable
_SILENT_STD = -3.0  # softplus of it, 0.05, is the standard deviation of latents sampled from the encoder


Part = Any
"""A module of the stock autoencoder; torch's types do not know its attributes."""


def dense_weight(conv: Part) -> Float[Tensor, "row column tap"]:
    """The weight of a weight-normalised convolution, as it is applied."""
    return torch._weight_norm(conv.weight_v, conv.weight_g, 0)


@torch.no_grad()
def set_weight(
    conv: Part, weight: Float[Tensor, "row column tap"], bias: Float[Tensor, " channel"] | None = None
) -> None:
    """Write `weight` into a weight-normalised convolution; its bias, if it has one, becomes `bias` or zero.

    Rows of zeros get length zero and keep their random direction, from which training can grow them.
    """
    length = weight.flatten(1).norm(dim=1).view(-1, 1, 1)
    conv.weight_v.copy_(torch.where(length > 0, weight, conv.weight_v))
    conv.weight_g.copy_(length)
    if conv.bias is not None:
        conv.bias.copy_(torch.zeros_like(conv.bias) if bias is None else bias)


def lapped_pca(
    clips: Float[np.ndarray, "clip sample"], components: int
) -> tuple[Float[np.ndarray, "position component"], Float[np.ndarray, "component position"]]:
    """Analysis and synthesis bases over two hops (1,280 samples) from the principal components of `clips`.

    Latents come out with unit variance: ``latent = frame @ analysis`` and ``frame = latent @ synthesis``,
    frames overlapping by half and adding up to the signal.
    """
    length = 2 * FRAME
    window = np.sin(np.pi * (np.arange(length) + 0.5) / length)
    emphasis_gain = (1 + (np.fft.rfftfreq(length, 1 / SAMPLE_RATE) / _EMPHASIS_HZ) ** 2) ** 0.25
    spectra = np.fft.rfft(np.eye(length), axis=1)
    emphasis = np.fft.irfft(spectra * emphasis_gain, axis=1)
    de_emphasis = np.fft.irfft(spectra / emphasis_gain, axis=1)
    covariance, n_frames = np.zeros((length, length)), 0
    for clip in clips:
        padded = np.pad(clip, FRAME // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::FRAME] * window
        frames = (frames @ emphasis).astype(np.float32)
        covariance += frames.T @ frames
        n_frames += len(frames)
    variance, vectors = np.linalg.eigh(covariance / n_frames)
    variance, vectors = variance[::-1][:components], vectors[:, ::-1][:, :components].copy()
    deviation = np.sqrt(variance)
    analysis = window[:, None] * (emphasis @ vectors) / deviation
    synthesis = (vectors.T @ de_emphasis) * deviation[:, None] * window
    return analysis.astype(np.float32), synthesis.astype(np.float32)


def _unfolding(shape: torch.Size, group: int, stride: int) -> Float[Tensor, "row column tap"]:
    """Weight that lays `stride` neighbours of `group` channels side by side; transposed, the reverse."""
    weight = torch.zeros(shape)
    for step in range(stride):
        for channel in range(group):
            weight[step * group + channel, channel, step + stride // 2] = 1
    return weight


def _basis_weight(
    basis: Float[np.ndarray, "component position"], shape: torch.Size
) -> Float[Tensor, "row column tap"]:
    """Weight of the innermost convolution: each component's basis, unfolded into channels and taps."""
    fold = RATIOS[0] * RATIOS[1]
    weight = torch.zeros(shape)
    unfolded = torch.from_numpy(basis).reshape(len(basis), 2 * RATIOS[2], fold).transpose(1, 2)
    weight[: len(basis), :fold] = unfolded
    return weight


def _impulse(shape: torch.Size, channels: int) -> Float[Tensor, "row column tap"]:
    """Weight that passes the first `channels` channels on unchanged."""
    weight = torch.zeros(shape)
    for channel in range(channels):
        weight[channel, channel, shape[2] // 2] = 1
    return weight


def _residual_units(block: Part) -> list[Part]:
    return [block.res_unit1, block.res_unit2, block.res_unit3]


@torch.no_grad()
def _silence_residual_units(vae: AutoencoderOobleck) -> None:
    """All residual units begin by adding nothing; those not in use stay so."""
    for half, in_use in ((vae.encoder, ENCODER_UNITS), (vae.decoder, DECODER_UNITS)):
        for block, count in zip(half.block, in_use, strict=True):
            for number, unit in enumerate(_residual_units(block)):
                unit.conv2.weight_g.zero_()
                unit.conv2.bias.zero_()
                unit.requires_grad_(number < count)


@torch.no_grad()
def _set_linear(snake: Part, log_alpha: float) -> None:
    snake.alpha.fill_(log_alpha)
    snake.beta.zero_()


def _set_encoder(vae: AutoencoderOobleck, analysis: Float[np.ndarray, "position component"]) -> None:
    """The encoder becomes the analysis half of the lapped transform."""
    encoder, (first, second, _) = vae.encoder, RATIOS
    outer, middle, inner = (block.conv1 for block in encoder.block)
    set_weight(outer, _unfolding(outer.weight_v.shape, 1, first))
    set_weight(middle, _unfolding(middle.weight_v.shape, first, second))
    set_weight(inner, _basis_weight(analysis.T.copy(), inner.weight_v.shape))
    bias = torch.full((2 * LATENT_CHANNELS,), _SILENT_STD)
    bias[:LATENT_CHANNELS] = 0
    set_weight(encoder.conv2, _impulse(encoder.conv2.weight_v.shape, LATENT_CHANNELS), bias)
    for half in (*encoder.block[1:], encoder):
        _set_linear(half.snake1, _NEARLY_LINEAR)


def _set_decoder(vae: AutoencoderOobleck, synthesis: Float[np.ndarray, "component position"]) -> None:
    """The decoder becomes the synthesis half; spare channels at the latent rate stay random and nonlinear."""
    decoder, (first, second, _) = vae.decoder, RATIOS
    weight = dense_weight(decoder.conv1).detach().clone()
    weight[:LATENT_CHANNELS] = _impulse(decoder.conv1.weight_v.shape, LATENT_CHANNELS)[:LATENT_CHANNELS]
    set_weight(decoder.conv1, weight)
    inner, middle, outer = (block.conv_t1 for block in decoder.block)
    set_weight(inner, _basis_weight(synthesis, inner.weight_v.shape))
    set_weight(middle, _unfolding(middle.weight_v.shape, first, second))
    set_weight(outer, _unfolding(outer.weight_v.shape, 1, first))
    for block in decoder.block:
        _set_linear(block.snake1, _NEARLY_LINEAR)
    with torch.no_grad():
        decoder.block[0].snake1.alpha[:, LATENT_CHANNELS:] = 0


def plain_vae(seed: int) -> AutoencoderOobleck:
    """A mono autoencoder of random weights, save for the parts that do nothing.

    Parameters that must stay as they are for `FastCodec` to be exact do not require gradients.
    """
    torch.manual_seed(seed)
    vae = AutoencoderOobleck(
        encoder_hidden_size=2 * LATENT_CHANNELS,
        downsampling_ratios=list(RATIOS),
        channel_multiples=[1, 2, 4],
        decoder_channels=LATENT_CHANNELS,
        decoder_input_channels=LATENT_CHANNELS,
        audio_channels=1,
        sampling_rate=SAMPLE_RATE,
    )
    for conv in (vae.encoder.conv1, vae.decoder.conv2):
        set_weight(conv, _impulse(conv.weight_v.shape, 1))
        conv.requires_grad_(False)
    for snake in (vae.encoder.block[0].snake1, vae.decoder.snake1):
        _set_linear(snake, _LINEAR)
        snake.requires_grad_(False)
    _silence_residual_units(vae)
    return vae


def initialise_vae(vae: AutoencoderOobleck, clips: Float[np.ndarray, "clip sample"]) -> None:
    """Set the weights of a `plain_vae` so that it is the lapped transform of `clips`."""
    analysis, synthesis = lapped_pca(clips, LATENT_CHANNELS)
    _set_encoder(vae, analysis)
    _set_decoder(vae, synthesis)


class FastCodec:
    """Encodes and decodes with the weights of a `plain_vae` autoencoder, skipping everything that does
    nothing.

    Equal to the stock path up to rounding, differentiable, and several times faster.
    """

    def __init__(self, vae: AutoencoderOobleck) -> None:
        self.vae = vae

    def encode(self, audio: Float[Tensor, "clip 1 sample"]) -> Float[Tensor, "clip channel frame"]:
        """Mean of the latents' distribution."""
        encoder = self.vae.encoder
        outer = encoder.block[0].conv1
        # The first convolution only copies the signal to channel 0: all other input channels are silent.
        weight = dense_weight(outer)[:, :1]
        hidden = F.conv1d(audio, weight, outer.bias, stride=outer.stride, padding=outer.padding)
        for block, count in list(zip(encoder.block, ENCODER_UNITS, strict=True))[1:]:
            for unit in _residual_units(block)[:count]:
                hidden = unit(hidden)
            hidden = block.conv1(block.snake1(hidden))
        hidden = encoder.conv2(encoder.snake1(hidden))
        return hidden[:, :LATENT_CHANNELS]

    def decode(self, latents: Float[Tensor, "clip channel frame"]) -> Float[Tensor, "clip 1 sample"]:
        """Audio of `latents`."""
        decoder = self.vae.decoder
        hidden = decoder.conv1(latents)
        for block, count in list(zip(decoder.block, DECODER_UNITS, strict=True))[:-1]:
            hidden = block.conv_t1(block.snake1(hidden))
            for unit in _residual_units(block)[:count]:
                hidden = unit(hidden)
        last = decoder.block[-1]
        # The last convolution only reads channel 0: the other output channels need not be computed.
        weight = dense_weight(last.conv_t1)[:, :1]
        bias = last.conv_t1.bias[:1]
        stride, padding = last.conv_t1.stride, last.conv_t1.padding
        return F.conv_transpose1d(last.snake1(hidden), weight, bias, stride=stride, padding=padding)


def load_vae(folder: Path) -> AutoencoderOobleck:
    """The autoencoder in a folder, in single precision; raises UserError when there is none or it is damaged."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give the one of a trained autoencoder.")
    with loading(folder.name, folder):
        return AutoencoderOobleck.from_pretrained(folder, dtype=torch.float32)
