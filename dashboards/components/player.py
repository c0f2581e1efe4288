"""Players of one recording each: the mel spectrogram with a playhead over it, and the audio's controls."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dash import html
from dash.development.base_component import Component

from dashboards.components.ab import Media, served
from dashboards.media import find_audio, missing_audio
from workbench.studies.study import Study


@dataclass(frozen=True)
class Recording:
    """One recording: its audio's path relative to the study, its length, and what stands above it.

    `hover` is the whole of a shortened title, `overlay` the URL of an image drawn over the spectrogram, `strip` of one
    below it, on the same time axis. The parts of the `note` at odd places are marked (`dashboards.differences.marked`).
    """

    path: str
    seconds: float
    title: str = ""
    hover: str = ""
    detail: str = ""
    note: tuple[str, ...] = ()
    overlay: str | None = None
    strip: str | None = None


def players(id: str, recordings: str = "[]") -> Component:
    """Players of the `recordings` (see `recordings_data`), which a callback changes by the property `data-recordings`.

    Players whose recordings stay are left alone, so that what plays goes on. Returned as part of a callback's
    `children`, they would start anew.
    """
    return html.Div(id=id, className="players", **{"data-recordings": recordings})


def recordings_data(study: Study, recordings: Sequence[Recording], media: Media = served) -> str:
    """The property `data-recordings` of `players`; a sentence replaces missing files. `media`: see `ab_sides`."""
    return json.dumps([_described(study, one, media) for one in recordings])


def player(
    study: Study, path: str, seconds: float, overlay: str | None = None, strip: str | None = None
) -> Component:
    """A player of one recording that no callback changes; see `Recording`."""
    data = recordings_data(study, [Recording(path, seconds, overlay=overlay, strip=strip)])
    return html.Div(className="players", **{"data-recordings": data})


def _described(study: Study, one: Recording, media: Media) -> dict[str, object]:
    texts = {
        "title": one.title,
        "hover": one.hover,
        "detail": one.detail,
        "note": one.note,
        "seconds": one.seconds,
    }
    if find_audio(study, one.path.removeprefix("audio/")) is None:
        return {**texts, "missing": missing_audio(one.path)}
    return {**texts, **media(study, one.path), "overlay": one.overlay, "strip": one.strip}
