"""ACE-Step v1's conversion between latents and audio: mel-spectrogram autoencoder, vocoder, resampling."""

import soxr
import torch
from diffusers import AutoencoderDC
from jaxtyping import Float
from torch.nn import functional as F

from cache.errors import UserError
from workbench.models.ace_step_v1.vocoder import AceStepV1Vocoder

# The denoiser's latents are (the autoencoder's - shift) * scale. The autoencoder's own scaling_factor is not used.
LATENT_SHIFT = -1.9091
LATENT_SCALE = 0.1786
# The autoencoder maps these log-mel values to -1 and 1.
LOWEST_MEL = -11.0
HIGHEST_MEL = 3.0


@torch.no_grad()
def decode_latents(
    latents: Float[torch.Tensor, "row 8 16 frame"],
    dcae: AutoencoderDC,
    vocoder: AceStepV1Vocoder,
    sample_rate: int | None = 48000,
) -> Float[torch.Tensor, "row channel sample"]:
    """Decode the denoiser's latents to audio on the CPU, in float32 or wider.

    A latent frame is 8 mel frames, or 4096 samples at the vocoder's 44.1 kHz. At another `sample_rate` (in Hz; None
    keeps the vocoder's), the length is rounded to the nearest sample. The vocoder's samples are in (-1, 1); resampling
    may overshoot slightly. Clips and their channels are decoded one at a time, so that memory does not grow with the
    batch.
    """
    native = vocoder.config.sampling_rate
    clips = [_decode_clip(clip, dcae, vocoder) for clip in latents.split(1)]
    return torch.stack([resample(clip, native, sample_rate or native) for clip in clips])


@torch.no_grad()
def encode_audio(
    audio: Float[torch.Tensor, "row channel sample"],
    sample_rate: int,
    dcae: AutoencoderDC,
    vocoder: AceStepV1Vocoder,
) -> Float[torch.Tensor, "row 8 16 frame"]:
    """Encode stereo recordings to the denoiser's latents; zeros fill up the last latent frame.

    The recordings must be on the models' device; `sample_rate` is in Hz.

    Raises:
        UserError: if the recordings are not stereo.
    """
    if audio.shape[1] != dcae.config.in_channels:
        raise UserError(
            f"ACE-Step v1 encodes audio of {dcae.config.in_channels} channels, not {audio.shape[1]}. "
            "Copy a mono recording to both channels."
        )
    native = vocoder.config.sampling_rate
    clips = [resample(clip, sample_rate, native).to(audio.device) for clip in audio]
    return torch.cat([_encode_clip(clip, dcae, vocoder) for clip in clips])


def resample(
    audio: Float[torch.Tensor, "channel sample"], source: int, target: int
) -> Float[torch.Tensor, "channel resampled"]:
    """Resample audio on the CPU with soxr (quality "HQ"), to round(samples * target / source) samples."""
    audio = _precise(audio).cpu()
    if source == target:
        return audio
    return torch.from_numpy(soxr.resample(audio.T.numpy(), source, target, quality="HQ").T.copy())


def _decode_clip(
    latents: Float[torch.Tensor, "1 8 16 frame"], dcae: AutoencoderDC, vocoder: AceStepV1Vocoder
) -> Float[torch.Tensor, "channel sample"]:
    unscaled = _precise(latents) / LATENT_SCALE + LATENT_SHIFT
    picture = _precise(dcae.decode(unscaled.to(dcae.dtype)).sample[0])
    mel = (picture * 0.5 + 0.5) * (HIGHEST_MEL - LOWEST_MEL) + LOWEST_MEL
    return torch.cat([vocoder(channel.to(vocoder.dtype))[0].cpu() for channel in mel.split(1)])


def _encode_clip(
    audio: Float[torch.Tensor, "channel sample"], dcae: AutoencoderDC, vocoder: AceStepV1Vocoder
) -> Float[torch.Tensor, "1 8 16 frame"]:
    whole = dcae.spatial_compression_ratio * vocoder.config.hop_length
    mel = vocoder.encode(F.pad(audio, (0, -audio.shape[1] % whole)))
    picture = (mel - LOWEST_MEL) / (HIGHEST_MEL - LOWEST_MEL) * 2 - 1
    encoded = _precise(dcae.encode(picture[None].to(dcae.dtype)).latent)
    return (encoded - LATENT_SHIFT) * LATENT_SCALE


def _precise(values: torch.Tensor) -> torch.Tensor:
    """Convert values to float32, unless they are wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
