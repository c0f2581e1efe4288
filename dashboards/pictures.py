"""Images drawn by the server: mel spectrograms, and a feature's activation over a clip."""

import base64
import io
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.colors import Colormap
from PIL import Image

from dashboards.drawing.paper import CMAP
from dashboards.results import Identity
from workbench.files import file_version
from workbench.spectrogram import FLOOR_DB, SILENCE, mel_power, mel_spectrogram
from workbench.studies.recordings import read_recording
from workbench.studies.study import Study

REMEMBERED = 256
COLUMNS = 600
"""Of a spectrogram, unless its clip is shorter: more than a screen shows."""
DIFFERENCE_DB = 40.0
"""Difference of two spectrograms at which the colours end."""


def spectrogram_png(study: Study, name: str) -> bytes:
    """Mel spectrogram of a recording as PNG without axes, from 0 s (left) to its end (right), with a range of 80 dB."""
    return _spectrogram(study, name, file_version(study.path / name))


@lru_cache(maxsize=REMEMBERED)
def _spectrogram(study: Study, name: str, version: Identity) -> bytes:
    del version  # only part of the cache key: a changed file is drawn again
    audio, sample_rate = study.read_audio(name)
    hop_seconds = max(0.01, audio.shape[1] / sample_rate / COLUMNS)
    levels = mel_spectrogram(audio, sample_rate, hop_seconds=hop_seconds) / -FLOOR_DB + 1.0
    return _png(levels[::-1], matplotlib.colormaps["magma"])


def difference_png(study: Study, name: str, reference: str, seconds: float) -> str:
    """Mel spectrogram of a recording minus that of another one, as the URL of a PNG without axes; red is louder.

    Levels are in decibels relative to the louder recording, at least `FLOOR_DB`; colours end at ±`DIFFERENCE_DB`.
    """
    files = tuple(file_version(study.path / each) for each in (name, reference))
    return _difference(study.path, name, reference, seconds, files)


@lru_cache(maxsize=REMEMBERED)
def _difference(root: Path, name: str, reference: str, seconds: float, versions: tuple[Identity, ...]) -> str:
    del versions
    powers = []
    for file in (name, reference):
        audio, sample_rate = read_recording(root, file, seconds)
        hop_seconds = max(0.01, audio.shape[1] / sample_rate / COLUMNS)
        powers.append(mel_power(audio, sample_rate, hop_seconds=hop_seconds))
    loudest = max(SILENCE, *(float(power.max(initial=0.0)) for power in powers))
    one, other = (np.maximum(10 * np.log10(np.maximum(each, SILENCE) / loudest), FLOOR_DB) for each in powers)
    image = _png(((one - other) / (2 * DIFFERENCE_DB) + 0.5)[::-1], matplotlib.colormaps["RdBu_r"])
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def warm_up() -> None:
    """Draw a short silence, so that the first visitor does not wait for Pillow to load."""
    _png(mel_spectrogram(np.zeros((1, 4096), dtype=np.float32), 16000), CMAP)


def activation_png(trace: xr.DataArray) -> bytes:
    """A feature's activation as PNG without axes: steps down, time across, white at 0, darkest at the maximum."""
    values = np.nan_to_num(trace.transpose("step", "token").values)
    return _png(values / max(float(values.max()), 1e-12), CMAP)


def activation_svg(trace: xr.DataArray, maximum: float) -> str:
    """A feature's activation over time (maximum over steps) as an SVG line on a transparent background.

    `maximum` is the activation at the top of the image, so that the clips of one feature can be compared.
    """
    heights = np.nan_to_num(trace.max("step").values / max(maximum, 1e-12))
    seconds = trace["seconds"].values.astype(float)
    end = seconds[-1] + (seconds[1] - seconds[0] if len(seconds) > 1 else 1.0)
    points = [
        f"{100 * edge / end:.2f},{97 - 90 * min(float(height), 1.0):.2f}"
        for start, stop, height in zip(seconds, [*seconds[1:], end], heights, strict=True)
        for edge in (start, stop)
    ]
    line = " ".join(points)
    stroke = 'vector-effect="non-scaling-stroke" fill="none"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" preserveAspectRatio="none">'
        f'<polygon points="0,97 {line} 100,97" fill="#ffffff" fill-opacity="0.18"/>'
        f'<polyline points="{line}" {stroke} stroke="#000000" stroke-opacity="0.6" stroke-width="4"/>'
        f'<polyline points="{line}" {stroke} stroke="#7df9ff" stroke-width="1.8"/></svg>'
    )


def _png(levels: Float[np.ndarray, "row column"], colours: Colormap) -> bytes:
    """Levels from 0 to 1 as a PNG, row 0 at the top."""
    indices = np.minimum(np.clip(levels, 0, 1) * colours.N, colours.N - 1).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours(np.arange(colours.N), bytes=True)[:, :3].tobytes())
    buffer = io.BytesIO()
    # The default level, 6, takes four times as long for a tenth fewer bytes.
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
