"""The output of `generate`: audio to play and save, and labelled activations."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import xarray as xr
from jaxtyping import Float

from cache.errors import UserError
from cache.protocol import DIMS
from workbench.audio import audio_html, write_audio
from workbench.engine.runs import Capture, Clip, Generation
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import numbered_site
from workbench.models.architecture import Architecture
from workbench.seeds import seed_array
from workbench.validation import must_be


class Activations(dict[str, xr.DataArray]):
    """The activations of a run by site, each with dims (clip, step, pass, token, channel).

    Coordinates: step, sigma (along step), pass, seconds (along token: the time at which the token begins), and along
    clip its number, prompt, lyrics and seed. At `k` and `v` of a cross-attention the tokens are those of the
    conditioning, without seconds. A site may also be written with the block's name in the model's paper. A site that
    was not captured raises UserError.
    """

    def __init__(self, arrays: dict[str, xr.DataArray], block_names: Sequence[str] = ()) -> None:
        super().__init__(arrays)
        self._block_names = tuple(block_names)

    def __missing__(self, site: str) -> xr.DataArray:
        number = numbered_site(site, self._block_names)
        if number in self:
            return self[number]
        have = f"those of {', '.join(self)}" if self else "none"
        raise UserError(f"Activations of '{site}' were not captured, only {have}. Use capture=['{site}'].")

    def of_clips(self, places: slice) -> "Activations":
        """Return the activations of some of the clips."""
        return Activations({site: array.isel(clip=places) for site, array in self.items()}, self._block_names)


@dataclass(frozen=True, eq=False)
class GeneratedClip:
    """A generated clip: samples at `sample_rate` Hz, and the captured activations.

    In a notebook it is displayed as a player. Samples are clipped to [-1, 1] when played or saved.
    """

    clip: Clip
    samples: Float[np.ndarray, "channel sample"]
    sample_rate: int
    activations: Activations

    def __repr__(self) -> str:
        clip = f"{self.clip.prompt!r}, seed {self.clip.seed}"
        return f"GeneratedClip({clip}, {self.seconds:g} s at {self.sample_rate} Hz)"

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.samples.shape[-1] / self.sample_rate

    def play(self) -> None:
        """Show a player in a notebook; elsewhere warn that `save` writes an audio file."""
        _show(self)

    def save(self, path: str | Path) -> Path:
        """Write the audio in the format of the file's extension (.wav, .flac, .ogg, …); return the path.

        Raises:
            UserError: if the extension is unknown, or the file cannot be written.
        """
        must_be((str, os.PathLike), path, "The file of a clip must be given by its path, such as 'clip.wav'")
        return write_audio(Path(path), self.samples, self.sample_rate)

    def _repr_html_(self) -> str:
        title = f"{self.clip.prompt} (seed {self.clip.seed})"
        return audio_html(self.samples, self.sample_rate, title)


@dataclass(frozen=True, eq=False)
class GeneratedClips(Sequence[GeneratedClip]):
    """Clips that were generated together, and their activations, in one array per site."""

    clips: tuple[GeneratedClip, ...]
    activations: Activations

    def __repr__(self) -> str:
        return f"GeneratedClips({', '.join(map(repr, self.clips))})"

    @overload
    def __getitem__(self, place: int) -> GeneratedClip: ...
    @overload
    def __getitem__(self, place: slice) -> "GeneratedClips": ...
    def __getitem__(self, place: int | slice) -> "GeneratedClip | GeneratedClips":
        if isinstance(place, slice):
            return GeneratedClips(self.clips[place], self.activations.of_clips(place))
        return self.clips[place]

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[GeneratedClip]:
        return iter(self.clips)

    def play(self) -> None:
        """Show a player for each clip in a notebook; elsewhere warn that `save` writes audio files."""
        _show(self)

    def _repr_html_(self) -> str:
        return "".join(clip._repr_html_() for clip in self.clips)


def generated_clips(
    clips: Sequence[Clip],
    audio: Float[np.ndarray, "clip channel sample"],
    sample_rate: int,
    activations: Activations,
) -> GeneratedClips:
    """Combine clips with their audio, each with its own part of the activations."""
    each = [
        GeneratedClip(clip, samples, sample_rate, activations.of_clips(slice(place, place + 1)))
        for place, (clip, samples) in enumerate(zip(clips, audio, strict=True))
    ]
    return GeneratedClips(tuple(each), activations)


def labelled(
    model: Architecture,
    clips: Sequence[Clip],
    settings: GenerationSettings,
    generation: Generation,
    capture: Capture | None,
) -> Activations:
    """Label the captured activations of clips."""
    if capture is None:
        return Activations({}, model.block_names)
    coords = {
        "clip": range(len(clips)),
        "prompt": ("clip", [clip.prompt for clip in clips]),
        "lyrics": ("clip", [clip.lyrics for clip in clips]),
        "seed": ("clip", seed_array([clip.seed for clip in clips])),
        "step": list(capture.steps),
        "sigma": ("step", model.sigmas(settings)),
        "pass": list(capture.passes),
    }
    arrays = {}
    for site, values in generation.activations.items():
        array = xr.DataArray(values.float().cpu().numpy(), coords, DIMS, name=str(site))
        if not site.on_conditioning:
            seconds = np.arange(array.sizes["token"]) * model.token_seconds_at(site)
            array = array.assign_coords(seconds=("token", seconds))
        arrays[str(site)] = array
    return Activations(arrays, model.block_names)


def _show(generated: GeneratedClip | GeneratedClips) -> None:
    try:
        from IPython import get_ipython  # not needed outside notebooks
        from IPython.display import display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        warnings.warn(
            "Audio plays only in a notebook. Write it to a file with .save('clip.wav').", stacklevel=3
        )
    else:
        display(generated)
