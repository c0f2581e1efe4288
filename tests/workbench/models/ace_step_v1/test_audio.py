"""Latents to audio and back, as numbers that one could hear: lengths, levels, channels, frequencies."""

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC
from safetensors.torch import save_file

from cache.errors import UserError
from tests.tiny_ace_step_v1_audio import TINY_VOCODER, save_tiny_audio, tiny_vocoder
from tests.tolerances import assert_close
from workbench.models.ace_step_v1.audio import decode_latents, encode_audio, resample
from workbench.models.ace_step_v1.mel import LogMel
from workbench.models.ace_step_v1.vocoder import AceStepV1Vocoder

FRAME = 8 * 512  # samples of a latent frame at 44.1 kHz
RATE = 44100

Models = tuple[AutoencoderDC, AceStepV1Vocoder]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_audio(folder)
    return folder


@pytest.fixture
def models(folder: Path) -> Models:
    return (
        AutoencoderDC.from_pretrained(folder / "music_dcae_f8c8"),
        AceStepV1Vocoder.from_pretrained(folder / "music_vocoder"),
    )


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sine(frequency: float, rate: int, seconds: float) -> torch.Tensor:
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return 0.5 * torch.sin(2 * math.pi * frequency * time + 0.3)


def log_mel() -> LogMel:
    return LogMel(RATE, n_fft=2048, win_length=2048, hop_length=512, f_min=40, f_max=16000, n_mels=128)


@pytest.mark.parametrize("frames", [1, 5])
def test_a_latent_frame_is_4096_samples_of_moderate_level(models: Models, frames: int) -> None:
    audio = decode_latents(noise(2, 8, 16, frames), *models, sample_rate=None)

    assert audio.shape == (2, 2, frames * FRAME)
    assert audio.dtype == torch.float32
    assert audio.abs().max() < 1
    assert (audio.std(dim=-1) > 0.005).all()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_length_at_48_khz_is_rounded(models: Models, frames: int) -> None:
    audio = decode_latents(noise(1, 8, 16, frames), *models)

    assert audio.shape == (1, 2, round(frames * FRAME * 48000 / RATE))


def test_audio_at_48_khz_is_the_resampled_audio(models: Models) -> None:
    latents = noise(1, 8, 16, 2)

    native = decode_latents(latents, *models, sample_rate=None)

    assert_close(decode_latents(latents, *models)[0], resample(native[0], RATE, 48000))


def test_rows_are_independent(models: Models) -> None:
    latents = noise(3, 8, 16, 2)

    together = decode_latents(latents, *models)

    alone = torch.cat([decode_latents(row, *models) for row in latents.split(1)])
    assert_close(together, alone)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_channels_are_independent(models: Models) -> None:
    dcae, vocoder = models
    latents = noise(1, 8, 16, 2)
    before = decode_latents(latents, dcae, vocoder)

    with torch.no_grad():  # the left channel's picture becomes another one
        dcae.decoder.conv_out.weight[0] *= -1

    after = decode_latents(latents, dcae, vocoder)
    assert_close(before[:, 1], after[:, 1])
    assert (before[:, 0] - after[:, 0]).abs().max() > 1e-3


def test_one_channel_of_one_clip_is_decoded_at_a_time(models: Models) -> None:
    dcae, vocoder = models
    seen: list[tuple[int, ...]] = []
    vocoder.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))

    decode_latents(noise(3, 8, 16, 2), dcae, vocoder)

    assert seen == [(1, 128, 16)] * 6


def test_bfloat16_weights_give_nearly_the_same_audio(folder: Path, models: Models) -> None:
    half: Models = (
        AutoencoderDC.from_pretrained(folder / "music_dcae_f8c8", torch_dtype=torch.bfloat16),
        AceStepV1Vocoder.from_pretrained(folder / "music_vocoder", torch_dtype=torch.bfloat16),
    )
    latents = noise(1, 8, 16, 4)

    audio = decode_latents(latents.bfloat16(), *half)
    full = decode_latents(latents, *models)

    assert half[1].dtype == torch.bfloat16
    assert half[1].mel_transform.spectrogram.window.dtype == torch.float32
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()
    assert (audio - full).square().mean() < 0.05 * full.square().mean()


def test_latents_are_not_changed(models: Models) -> None:
    latents = noise(1, 8, 16, 2)
    before = latents.clone()

    decode_latents(latents, *models)

    assert torch.equal(latents, before)


@pytest.mark.parametrize("source, target", [(44100, 48000), (48000, 44100), (22050, 44100)])
@pytest.mark.parametrize("frequency", [55.0, 1000.0, 9000.0])
def test_a_resampled_sine_keeps_frequency_level_and_phase(frequency: float, source: int, target: int) -> None:
    audio = torch.stack([sine(frequency, source, 0.5), -sine(frequency, source, 0.5)])

    resampled = resample(audio, source, target)

    assert resampled.shape == (2, target // 2)
    assert resampled.dtype == torch.float64
    inside = slice(target // 10, -target // 10)  # away from the onsets
    error = (resampled[0] - sine(frequency, target, 0.5))[inside].abs().max()
    assert error < 1e-5
    assert torch.allclose(resampled[0], -resampled[1], atol=1e-7)


def test_audio_at_its_own_rate_is_left_alone() -> None:
    audio = noise(2, 100)

    assert torch.equal(resample(audio, 48000, 48000), audio)


@pytest.mark.parametrize("frequency", [100.0, 1000.0, 8000.0])
def test_a_sine_is_loudest_in_its_own_mel_band(frequency: float) -> None:
    mel = log_mel()(sine(frequency, RATE, 0.5)[None])[0].mean(dim=1)

    # Slaney's scale: 200/3 Hz a mel up to 1 kHz, then a factor of 6.4 in 27 mels; the centres divide it evenly.
    def mels(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    low, high = mels(40), mels(16000)
    band = (mels(frequency) - low) / (high - low) * 129 - 1
    assert abs(int(mel.argmax()) - band) <= 1


def test_twice_the_amplitude_is_log_2_more() -> None:
    audio = sine(1000, RATE, 0.5)[None]

    louder, quieter = (log_mel()(gain * audio)[0].amax(dim=0) for gain in (1.0, 0.5))

    assert torch.allclose(louder - quieter, torch.full_like(louder, math.log(2)), atol=1e-4)


def test_silence_is_the_floor_of_each_band() -> None:
    transform = log_mel()

    mel = transform(torch.zeros(1, 4 * 512))

    floor = (1e-3 * transform.mel_scale.fb.sum(dim=0)).clamp(min=1e-5).log()
    assert mel.shape == (1, 128, 4)
    assert torch.allclose(mel[0], floor[:, None].expand(-1, 4), atol=1e-5)


@pytest.mark.parametrize("samples, frames", [(1000, 1), (FRAME, 1), (FRAME + 1, 2), (3 * FRAME, 3)])
def test_latent_frames_of_a_recording(models: Models, samples: int, frames: int) -> None:
    assert encode_audio(0.1 * noise(2, 2, samples), RATE, *models).shape == (2, 8, 16, frames)


def test_a_second_at_48_khz_has_the_latents_of_the_same_second_at_44_1_khz(models: Models) -> None:
    clips = (sine(440, rate, 1.0).float().expand(1, 2, -1) for rate in (48000, RATE))

    first, second = (
        encode_audio(clip, rate, *models) for clip, rate in zip(clips, (48000, RATE), strict=True)
    )

    assert first.shape == (1, 8, 16, 11)
    inside = slice(2, -2)
    assert (first - second)[..., inside].abs().max() < 1e-2 * second.abs().max()


def test_a_mono_recording_is_refused(models: Models) -> None:
    with pytest.raises(UserError, match="2 channels, not 1\\. Copy"):
        encode_audio(noise(1, 1, FRAME), RATE, *models)


def test_a_folder_with_the_published_class_name_loads(tmp_path: Path) -> None:
    original = tiny_vocoder()
    config = {"_class_name": "ADaMoSHiFiGANV1", "_diffusers_version": "0.32.2", **TINY_VOCODER}
    (tmp_path / "config.json").write_text(json.dumps(config | {"drop_path_rate": 0.0, "use_template": False}))
    save_file(original.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")

    loaded = AceStepV1Vocoder.from_pretrained(tmp_path)

    mel = noise(1, 128, 3)
    assert torch.equal(loaded(mel), original(mel))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"use_template": True}, "template"),
        ({"kernel_sizes": [3, 7]}, "parallel kernel sizes"),
        ({"hop_length": 256}, "multiply to 512"),
    ],
)
def test_configurations_of_other_vocoders_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        AceStepV1Vocoder(**TINY_VOCODER | change)


def test_kernels_have_the_length_of_their_gain() -> None:
    """Twice the direction changes nothing; twice the length doubles what the convolution adds to its bias."""
    convolution = tiny_vocoder().head.ups[0]
    x = noise(1, convolution.weight_v.shape[0], 3)
    with torch.no_grad():
        before = convolution(x)
        convolution.weight_v *= 2
        assert_close(convolution(x), before)
        convolution.weight_g *= 2
        assert_close(convolution(x), 2 * before)  # the tiny vocoder has no biases here
