"""ACE-Step v1's vocoder, from log-mel spectrograms to audio, with the published checkpoint's parameter names.

A one-dimensional ConvNeXt over frames (Liu et al. 2022) feeds a HiFi-GAN generator (Kong et al. 2020).
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F

from cache.errors import UserError
from workbench.models.ace_step_v1.mel import LogMel


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (row, channel, frame)."""

    def forward(
        self, input: Float[torch.Tensor, "row channel frame"]
    ) -> Float[torch.Tensor, "row channel frame"]:
        """Normalise every frame."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """A residual block: depthwise convolution over frames, then a two-layer network within each frame.

    `gamma` scales the output of each channel (layer scale).
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(
        self, x: Float[torch.Tensor, "row channel frame"]
    ) -> Float[torch.Tensor, "row channel frame"]:
        """Return the input plus the block's output."""
        hidden = self.norm(self.dwconv(x).transpose(1, 2))
        hidden = self.pwconv2(F.gelu(self.pwconv1(hidden)))
        return x + (self.gamma * hidden).transpose(1, 2)


class ConvNeXt(nn.Module):
    """Stages of blocks, each of one width; pointwise convolutions lead from one width to the next."""

    def __init__(self, bands: int, depths: Sequence[int], widths: Sequence[int], kernel_size: int) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv1d(bands, widths[0], 7, padding=3, padding_mode="replicate"),
            ChannelNorm(widths[0], eps=1e-6),
        )
        transitions = (
            nn.Sequential(ChannelNorm(narrow, eps=1e-6), nn.Conv1d(narrow, wide, 1))
            for narrow, wide in pairwise(widths)
        )
        self.channel_layers = nn.ModuleList([stem, *transitions])
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, kernel_size) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = ChannelNorm(widths[-1], eps=1e-6)

    def forward(self, x: Float[torch.Tensor, "row band frame"]) -> Float[torch.Tensor, "row channel frame"]:
        """Return features of every frame, with the width of the last stage."""
        for entry, stage in zip(self.channel_layers, self.stages, strict=True):
            x = stage(entry(x))
        return self.norm(x)


class WeightNormed(nn.Module):
    """A convolution whose kernels are directions `weight_v` times lengths `weight_g` (Salimans & Kingma 2016).

    There is one length per entry of the kernel's first axis: per output channel of a convolution, per input channel of
    a transposed convolution. The names are those of the checkpoint.
    """

    def __init__(self, convolution: nn.Conv1d | nn.ConvTranspose1d) -> None:
        super().__init__()
        self.weight_v = convolution.weight
        self.weight_g = nn.Parameter(_lengths(convolution.weight).detach())
        self.bias = convolution.bias
        names = ("stride", "padding", "dilation")
        settings: dict[str, Any] = {name: getattr(convolution, name) for name in names}
        transposed = isinstance(convolution, nn.ConvTranspose1d)
        self.convolve = partial(F.conv_transpose1d if transposed else F.conv1d, **settings)

    def forward(self, x: Float[torch.Tensor, " row in sample"]) -> Float[torch.Tensor, "row out longer"]:
        """Apply the convolution."""
        return self.convolve(x, self.weight_v * (self.weight_g / _lengths(self.weight_v)), self.bias)


def _lengths(kernels: Float[torch.Tensor, "n m tap"]) -> Float[torch.Tensor, "n 1 1"]:
    return torch.linalg.vector_norm(kernels, dim=(1, 2), keepdim=True)


def _same_length(n_in: int, n_out: int, kernel_size: int, dilation: int = 1) -> WeightNormed:
    """Return a convolution that preserves the number of samples; the kernel size must be odd."""
    padding = dilation * (kernel_size - 1) // 2
    return WeightNormed(nn.Conv1d(n_in, n_out, kernel_size, padding=padding, dilation=dilation))


class DilatedResidual(nn.Module):
    """Residual pairs of convolutions, of which the first is dilated."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same_length(channels, channels, kernel_size, d) for d in dilations)
        self.convs2 = nn.ModuleList(_same_length(channels, channels, kernel_size) for _ in dilations)

    def forward(
        self, x: Float[torch.Tensor, "row channel sample"]
    ) -> Float[torch.Tensor, "row channel sample"]:
        """Return the input plus the output of each pair in turn."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.silu(dilated(F.silu(x))))
        return x


class Generator(nn.Module):
    """HiFi-GAN: each stage upsamples by transposed convolution, halves the channels, and averages residual blocks."""

    def __init__(
        self,
        features: int,
        channels: int,
        upsampling: Sequence[tuple[int, int]],
        residuals: Sequence[tuple[int, Sequence[int]]],
        first_kernel: int,
        last_kernel: int,
    ) -> None:
        super().__init__()
        self.n_parallel = len(residuals)
        self.conv_pre = _same_length(features, channels, first_kernel)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in upsampling:
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            channels //= 2
            self.ups.append(WeightNormed(up))
            self.resblocks.extend(DilatedResidual(channels, size, dilations) for size, dilations in residuals)
        self.conv_post = _same_length(channels, 1, last_kernel)

    def forward(self, x: Float[torch.Tensor, "row channel frame"]) -> Float[torch.Tensor, "row 1 sample"]:
        """Return samples in [-1, 1]."""
        x = self.conv_pre(x)
        for step, up in enumerate(self.ups):
            x = up(F.silu(x))
            parallel = self.resblocks[step * self.n_parallel : (step + 1) * self.n_parallel]
            x = sum(block(x) for block in parallel) / self.n_parallel
        return torch.tanh(self.conv_post(F.silu(x)))


class AceStepV1Vocoder(ModelMixin, ConfigMixin):
    """Convert log-mel spectrograms of one audio channel to samples, and samples to log-mel spectrograms.

    The defaults are the published configuration: 128 bands at 44.1 kHz, 512 samples per frame. `drop_path_rate` matters
    only in training and has no effect here.

    Raises:
        UserError: if the configuration has a template signal, parallel kernel sizes, or upsampling rates whose product
            is not `hop_length`; the published checkpoint has none of these.
    """

    # Rounded to bfloat16, its window leaks: quiet bands beside a loud tone would be up to 26 dB too high.
    _keep_in_fp32_modules: ClassVar = ["mel_transform"]

    @register_to_config
    def __init__(
        self,
        input_channels: int = 128,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (128, 256, 384, 512),
        drop_path_rate: float = 0.0,  # noqa: ARG002 - a key of the published configuration
        kernel_sizes: Sequence[int] = (7,),
        upsample_rates: Sequence[int] = (4, 4, 2, 2, 2, 2, 2),
        upsample_kernel_sizes: Sequence[int] = (8, 8, 4, 4, 4, 4, 4),
        resblock_kernel_sizes: Sequence[int] = (3, 7, 11, 13),
        resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5), (1, 3, 5)),
        num_mels: int = 512,
        upsample_initial_channel: int = 1024,
        use_template: bool = False,
        pre_conv_kernel_size: int = 13,
        post_conv_kernel_size: int = 13,
        sampling_rate: int = 44100,
        n_fft: int = 2048,
        win_length: int = 2048,
        hop_length: int = 512,
        f_min: int = 40,
        f_max: int = 16000,
        n_mels: int = 128,
    ) -> None:
        super().__init__()
        if use_template or len(kernel_sizes) != 1:
            raise UserError(
                "This vocoder configuration has a template signal or parallel kernel sizes, which ACE-Step v1 does not "
                "have. Use the folder music_vocoder of the published checkpoint."
            )
        if math.prod(upsample_rates) != hop_length:
            raise UserError(
                f"The product of upsample_rates must equal hop_length ({hop_length}), but {list(upsample_rates)} "
                f"multiply to {math.prod(upsample_rates)}."
            )
        self.backbone = ConvNeXt(input_channels, depths, dims, kernel_sizes[0])
        self.head = Generator(
            features=num_mels,
            channels=upsample_initial_channel,
            upsampling=list(zip(upsample_rates, upsample_kernel_sizes, strict=True)),
            residuals=list(zip(resblock_kernel_sizes, resblock_dilation_sizes, strict=True)),
            first_kernel=pre_conv_kernel_size,
            last_kernel=post_conv_kernel_size,
        )
        self.mel_transform = LogMel(sampling_rate, n_fft, win_length, hop_length, f_min, f_max, n_mels)

    def forward(self, mel: Float[torch.Tensor, "row band frame"]) -> Float[torch.Tensor, "row 1 sample"]:
        """Return the audio of log-mel spectrograms: `hop_length` samples in [-1, 1] per frame."""
        return self.head(self.backbone(mel))

    @apply_forward_hook
    def encode(self, audio: Float[torch.Tensor, "row sample"]) -> Float[torch.Tensor, "row band frame"]:
        """Return log-mel spectrograms of mono audio at `sampling_rate` Hz: one frame per `hop_length` samples."""
        return self.mel_transform(audio)
