"""Audio files."""

import base64
import html
import io
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
from jaxtyping import Float

from cache.errors import UserError
from cache.opening import open_file
from workbench.files import replacing

SILENCE_RMS = 1e-5  # a third of the smallest step of 16-bit audio
LONGEST_SECONDS = 1200.0
LOWEST_RATE, HIGHEST_RATE = 1000, 192_000
MOST_CHANNELS = 2


def write_flac(
    path: Path, audio: Float[np.ndarray, "channel sample"], sample_rate: int, root: Path | None = None
) -> None:
    """Write audio in [-1, 1] as 16-bit FLAC, atomically; see `workbench.files.replacing` for `root`.

    Raises:
        UserError: if the file cannot be written.
    """
    content = _encoded(audio, sample_rate, "FLAC", "PCM_16")
    with replacing(path, root) as partial:
        partial.write_bytes(content)


def write_audio(path: Path, audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> Path:
    """Write audio in [-1, 1] in the format of the file's ending; return the path.

    Raises:
        UserError: if the ending is unknown, the format does not support the sample rate, or the file cannot be written.
    """
    format = path.suffix.removeprefix(".").upper()
    if format not in soundfile.available_formats():
        raise UserError(f"'{path.name}' must end in .wav, .flac, .ogg or .mp3.")
    try:
        content = _encoded(audio, sample_rate, format)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {str(error).rstrip('.')}.") from error
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def wav_bytes(audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> bytes:
    """Return audio in [-1, 1] as the content of a 16-bit WAV file, whose size says only how long it is."""
    return _encoded(audio, sample_rate, "WAV", "PCM_16")


def _encoded(
    audio: Float[np.ndarray, "channel sample"], sample_rate: int, format: str, subtype: str | None = None
) -> bytes:
    """Return audio in [-1, 1] as the content of a file.

    To be written by the caller: libsndfile does not say why the system refuses to write, such as for a full disk.
    """
    with io.BytesIO() as file:
        soundfile.write(file, np.clip(audio, -1.0, 1.0).T, sample_rate, format=format, subtype=subtype)
        return file.getvalue()


def audio_html(audio: Float[np.ndarray, "channel sample"], sample_rate: int, title: str) -> str:
    """Return an HTML player with a title and the audio, in [-1, 1], embedded."""
    data = base64.b64encode(_encoded(audio, sample_rate, "FLAC", "PCM_16")).decode()
    return (
        f'<figure style="margin: 0.5em 0"><figcaption>{html.escape(title)}</figcaption>'
        f'<audio controls src="data:audio/flac;base64,{data}"></audio></figure>'
    )


def check_clips(audio: Any) -> None:
    """Raise UserError unless audio has the three dimensions of clips: clip, channel and sample."""
    if np.ndim(audio) != 3:
        raise UserError(
            "Audio must have three dimensions, clip, channel and sample; it has "
            f"{np.ndim(audio)}. One mono clip is samples[None, None]."
        )


def unscorable(audio: Float[np.ndarray, "channel sample"]) -> str:
    """Return why audio cannot be scored ("it is silent"), or "" if it can."""
    if audio.size == 0:
        return "it is empty"
    if not np.isfinite(audio).all():
        return "it has samples that are not finite numbers"
    if np.sqrt(np.mean(np.square(audio, dtype=np.float64))) < SILENCE_RMS:
        return "it is silent"
    return ""


def not_finite(what: str, step: int | None, dtype: str, edited: bool = False) -> str:
    """Return the error for `what`, whose numbers became NaN or infinite in a step, or in decoding (None).

    If it was `edited`, the edits are the first suspect: the numbers of a huge strength overflow.
    """
    where = "in decoding" if step is None else f"in step {step}"
    wider = {"float16": "bfloat16 or float32", "bfloat16": "float32"}.get(dtype)
    advice = (
        f"run the model in {wider} (--model-dtype, or dtype= in Python)"
        if wider
        else "check the model's weights and the settings"
    )
    if edited:
        advice = f"use smaller strengths in its edits, or {advice}"
    return f"{what} became NaN or infinite {where} (the model runs in {dtype}): {advice}."


def read_audio(
    path: Path,
    root: Path | None = None,
    longest: float = LONGEST_SECONDS,
    again: str = "generate it again",
) -> tuple[Float[np.ndarray, "channel sample"], int]:
    """Read a FLAC file; return float32 samples (channel, sample) and the sample rate in Hz.

    If the file is in an untrusted folder, such as a study, `root` is that folder: links between the two are not
    followed. A recording longer than `longest` seconds is not read, because hours of silence compress to kilobytes.
    `again` is what errors advise to do to get a new recording.

    Raises:
        UserError: if it is missing, damaged or too long, or has an implausible sample rate or number of channels.
        cache.opening.UnsafeFile: for links.
    """
    folder = root or path.parent
    try:
        with open_file(folder, path.relative_to(folder)) as file, _recording(file) as recording:
            rate, channels, frames = recording.samplerate, recording.channels, recording.frames
            if (
                recording.format != "FLAC"
                or not LOWEST_RATE <= rate <= HIGHEST_RATE
                or channels > MOST_CHANNELS
            ):
                raise UserError(
                    f"The recording {path} is {recording.format} with {channels} channels at {rate} Hz, which the "
                    f"workbench did not write. Delete it, then {again}, or restore it from a copy."
                )
            if not 0 <= frames <= longest * rate:
                raise UserError(
                    f"The recording {path} must be at most {longest:g} s long. Delete it, then {again}, or restore it "
                    "from a copy."
                )
            audio = recording.read(frames, dtype="float32", always_2d=True)
    except FileNotFoundError as error:
        raise UserError(
            f"There is no recording {path}. To get it, {again}, or restore it from a copy."
        ) from error
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"The recording {path} is damaged. Delete it, then {again}, or restore it from a copy."
        ) from error
    return np.ascontiguousarray(audio.T), int(rate)


def _recording(file: IO[bytes]) -> soundfile.SoundFile:
    return soundfile.SoundFile(file.fileno(), closefd=False)
