"""musicnn's network in torch: tags of music from a log-mel spectrogram (Pons and Serra 2019, arXiv:1909.06654)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

FRAMES, MELS = 187, 96
"""Size of the spectrograms that it was trained on: 3 s."""
TIMBRAL = ((7, 38), (7, 67))
"""Kernels (frame, mel) of 204 filters each, which see timbre: 0.4 and 0.7 of the mel bands."""
TEMPORAL = (128, 64, 32)
"""Kernels, in frames of one band, of 51 filters each, which see rhythm."""
FRONT, MIDDLE, BACK, TAGS = 2 * 204 + 3 * 51, 64, 200, 50
"""Channels after the front end, of each middle layer, of the layer before the last; number of tags."""
# Keras' value, in every batch normalisation.
EPSILON = 1e-3


class MusicnnNetwork(nn.Module):
    """Three stages: filters shaped as timbre and rhythm are, three convolutions over time, and pooling over time.

    Outputs are logits of the tags. Use it in evaluation mode: batches are normalised with the moments of the training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, EPSILON)
        kernels = [*TIMBRAL, *((frames, 1) for frames in TEMPORAL)]
        self.front = nn.ModuleList(
            _Filters(1, 204 if kernel in TIMBRAL else 51, kernel) for kernel in kernels
        )
        self.middle = nn.ModuleList(_Filters(1, MIDDLE, (7, width)) for width in (FRONT, MIDDLE, MIDDLE))
        pooled = 2 * (FRONT + 3 * MIDDLE)
        self.pooled_norm = nn.BatchNorm1d(pooled, EPSILON)
        self.dense = nn.Linear(pooled, BACK)
        self.dense_norm = nn.BatchNorm1d(BACK, EPSILON)
        self.tags = nn.Linear(BACK, TAGS)

    def forward(self, spectrogram: Float[Tensor, "window frame mel"]) -> Float[Tensor, "window tag"]:
        """Return the logit of each tag."""
        x = self.input_norm(spectrogram[:, None])
        front = torch.cat([filters(x).amax(3) for filters in self.front], 1)  # window, channel, frame
        layers = [front]
        for filters in self.middle:
            found = filters(layers[-1].transpose(1, 2)[:, None])[..., 0]
            layers.append(found + layers[-1] if len(layers) > 1 else found)
        channels = torch.cat(layers, 1)
        pooled = torch.stack([channels.amax(2), channels.mean(2)], 2).flatten(1)
        hidden = self.dense_norm(torch.relu(self.dense(self.pooled_norm(pooled))))
        return self.tags(hidden)


class _Filters(nn.Module):
    """A convolution that keeps the number of frames, then ReLU and batch normalisation."""

    def __init__(self, channels_in: int, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        before = (kernel[0] - 1) // 2
        self.pad = nn.ZeroPad2d((0, 0, before, kernel[0] - 1 - before))
        self.convolution = nn.Conv2d(channels_in, channels, kernel)
        self.norm = nn.BatchNorm2d(channels, EPSILON)

    def forward(self, x: Float[Tensor, "window _ frame _mel"]) -> Float[Tensor, "window channel frame _rest"]:
        return self.norm(torch.relu(self.convolution(self.pad(x))))
