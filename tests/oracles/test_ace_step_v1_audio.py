"""The vocoder, and latents to audio and back, against ACE-Step's own code (fixtures; see the README here).

All fixtures were computed in float64. Ours agrees to 1e-10 in float64, and to 1e-5 of the output's scale in float32.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from diffusers import AutoencoderDC

from tests.oracles.recipe import fill
from workbench.models.ace_step_v1.audio import decode_latents, encode_audio, resample
from workbench.models.ace_step_v1.vocoder import AceStepV1Vocoder

FIXTURES = Path(__file__).parent / "fixtures" / "ace_step_v1"
SETTINGS = json.loads((FIXTURES / "audio.json").read_text())
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "audio.npz") as file:
        return dict(file)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """The dtype of everything; in float64, the autoencoder's own steps in float32 are in float64 too."""
    given_to = torch.Tensor.to

    def widening_to(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        def wide(value: object) -> object:
            return torch.float64 if value is torch.float32 else value

        return given_to(tensor, *map(wide, args), **{name: wide(value) for name, value in kwargs.items()})

    torch.set_default_dtype(request.param)
    if request.param is torch.float64:
        monkeypatch.setattr(torch.Tensor, "to", widening_to)
    yield request.param
    torch.set_default_dtype(torch.float32)


def normals(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Standard normals of the generator that (seed, CRC-32 of the name) start, in the default dtype."""
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    return torch.from_numpy(values).to(torch.get_default_dtype())


def vocoder_of(config: dict, seed: int) -> AceStepV1Vocoder:
    """A vocoder with drawn parameters; the mel transform keeps its window and bands."""
    vocoder = AceStepV1Vocoder(**config)
    fill(vocoder.backbone, seed)
    fill(vocoder.head, seed)
    return vocoder.eval()


def models_of(dcae: str, config: dict, seed: int) -> tuple[AutoencoderDC, AceStepV1Vocoder]:
    autoencoder = AutoencoderDC(**SETTINGS["dcaes"][dcae]).eval()
    fill(autoencoder, seed)
    return autoencoder, vocoder_of(config, seed)


def assert_agree(ours: torch.Tensor, theirs: np.ndarray, dtype: torch.dtype) -> None:
    assert ours.dtype == dtype
    assert ours.shape == theirs.shape
    error = (ours.double() - torch.from_numpy(theirs)).abs().max()
    assert error < TOLERANCE[dtype] * np.abs(theirs).max()


@pytest.mark.parametrize("name", SETTINGS["vocoders"])
def test_original_state_dict_loads_strictly(name: str) -> None:
    case = SETTINGS["vocoders"][name]
    state = {key: torch.full(shape, 0.5) for key, shape in case["shapes"].items()}

    vocoder = AceStepV1Vocoder(**case["config"])
    vocoder.load_state_dict(state, strict=True)

    assert all((value == 0.5).all() for value in vocoder.state_dict().values())


def test_defaults_are_the_original_configuration_with_its_names_and_shapes() -> None:
    published = SETTINGS["published"]

    with torch.device("meta"):
        vocoder = AceStepV1Vocoder()

    config = json.loads(vocoder.to_json_string())
    assert {name: value for name, value in config.items() if not name.startswith("_")} == published["config"]
    assert {name: list(value.shape) for name, value in vocoder.state_dict().items()} == published["shapes"]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", SETTINGS["vocoders"])
@torch.no_grad()
def test_vocoder_equals_original(
    name: str, seed: int, dtype: torch.dtype, expected: dict[str, np.ndarray]
) -> None:
    config = SETTINGS["vocoders"][name]["config"]
    vocoder = vocoder_of(config, seed)
    mel = normals("mel", (2, config["input_channels"], 5), seed) * 3 - 4

    assert_agree(vocoder(mel), expected[f"vocoder {name} {seed}"], dtype)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", SETTINGS["vocoders"])
def test_log_mel_equals_original(
    name: str, seed: int, dtype: torch.dtype, expected: dict[str, np.ndarray]
) -> None:
    config = SETTINGS["vocoders"][name]["config"]
    audio = normals("audio", (2, 3 * config["win_length"]), seed) * 0.3

    assert_agree(AceStepV1Vocoder(**config).encode(audio), expected[f"mel {name} {seed}"], dtype)


@pytest.mark.parametrize("seed, frames", [(3, 2), (4, 3)])
@pytest.mark.parametrize("dcae", SETTINGS["dcaes"])
def test_latents_to_audio_equal_original(
    dcae: str, seed: int, frames: int, dtype: torch.dtype, expected: dict[str, np.ndarray]
) -> None:
    models = models_of(dcae, SETTINGS["decode_vocoder"], seed)
    latents = normals("latents", (2, 8, 16, frames), seed)

    audio = decode_latents(latents, *models, sample_rate=None)

    assert_agree(audio, expected[f"decode {dcae} {seed}"], dtype)


@pytest.mark.parametrize("dcae", SETTINGS["dcaes"])
def test_audio_to_latents_equal_original(
    dcae: str, dtype: torch.dtype, expected: dict[str, np.ndarray]
) -> None:
    models = models_of(dcae, SETTINGS["encode_vocoder"], 5)
    recording = normals("recording", (2, 2, 5000), 5) * 0.2

    assert_agree(encode_audio(recording, 44100, *models), expected[f"encode {dcae}"], dtype)


def decibels_apart(ours: np.ndarray, theirs: np.ndarray, below: float) -> float:
    """Power of the difference over the power of theirs, at frequencies below a bound in Hz."""
    band = np.fft.rfftfreq(len(ours), 1 / 48000) < below
    difference, reference = (np.abs(np.fft.rfft(x))[band] for x in (ours - theirs, theirs))
    return 10 * np.log10(np.sum(difference**2) / np.sum(reference**2))


def test_resampling_is_nearer_to_the_ideal_than_torchaudio(expected: dict[str, np.ndarray]) -> None:
    """The original's short filter loses the treble; what the two differ by is the original's error."""
    burst = np.zeros(4410)
    burst[1200:3200] = normals("burst", (2000,), 6) * torch.hann_window(2000)
    ideal = scipy.signal.resample(burst, 4800)  # of a periodic signal, by its Fourier series
    theirs = expected["resampled burst"][0]

    ours = resample(torch.from_numpy(burst)[None], 44100, 48000)[0].numpy()

    assert decibels_apart(ours, theirs, below=10000) < -60
    assert decibels_apart(ours, theirs, below=15000) < -50
    assert decibels_apart(ours, ideal, below=15000) < -110
    assert decibels_apart(ours, ideal, below=20000) < -70
