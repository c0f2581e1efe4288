"""Log-mel spectrograms as ACE-Step v1's autoencoder and vocoder expect them."""

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

SILENT_POWER = 1e-6  # added to the power of every bin, whose magnitude is therefore at least 1e-3
QUIETEST_MEL = 1e-5  # lower limit of a band, so that the logarithm of a band without bins is defined


class Magnitude(nn.Module):
    """Magnitudes of the short-time Fourier transform with a Hann window, one frame every `hop_length` samples.

    The recording is reflection-padded by half a window minus half a hop at each end, so that `n` hops of samples give
    `n` frames.
    """

    window: torch.Tensor

    def __init__(self, n_fft: int, win_length: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.win_length = win_length
        self.hop_length = hop_length
        self.register_buffer("window", torch.hann_window(win_length))

    def forward(self, audio: Float[torch.Tensor, "row sample"]) -> Float[torch.Tensor, "row bin frame"]:
        """Return the square root of (power + 1e-6) of each bin and frame."""
        outside = self.win_length - self.hop_length
        padded = F.pad(audio, (outside // 2, outside - outside // 2), mode="reflect")
        spectrum = torch.stft(
            padded,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window.to(padded.dtype),
            center=False,
            return_complex=True,
        )
        return (spectrum.real**2 + spectrum.imag**2 + SILENT_POWER).sqrt()


class MelBands(nn.Module):
    """Weighted sums of magnitudes in bands evenly spaced on Slaney's mel scale, each of unit area.

    The weights `fb` (bin, band) are a buffer because checkpoints contain them.
    """

    fb: torch.Tensor

    def __init__(self, n_bins: int, n_mels: int, sampling_rate: int, f_min: int, f_max: int) -> None:
        super().__init__()
        weights = mel_filter_bank(
            n_bins, n_mels, f_min, f_max, sampling_rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("fb", torch.from_numpy(weights).to(torch.get_default_dtype()))

    def forward(
        self, magnitude: Float[torch.Tensor, "row bin frame"]
    ) -> Float[torch.Tensor, "row band frame"]:
        """Return the weighted sums over bins."""
        return self.fb.to(magnitude.dtype).T @ magnitude


class LogMel(nn.Module):
    """Natural logarithm of mel band magnitudes, in float32 or wider whatever the dtype of the buffers."""

    def __init__(
        self,
        sampling_rate: int,
        n_fft: int,
        win_length: int,
        hop_length: int,
        f_min: int,
        f_max: int,
        n_mels: int,
    ) -> None:
        super().__init__()
        self.spectrogram = Magnitude(n_fft, win_length, hop_length)
        self.mel_scale = MelBands(n_fft // 2 + 1, n_mels, sampling_rate, f_min, f_max)

    def forward(self, audio: Float[torch.Tensor, "row sample"]) -> Float[torch.Tensor, "row band frame"]:
        """Return log-mel spectrograms of mono recordings at the configured sampling rate, one frame per hop."""
        precise = audio.to(torch.promote_types(audio.dtype, torch.float32))
        return self.mel_scale(self.spectrogram(precise)).clamp(min=QUIETEST_MEL).log()
