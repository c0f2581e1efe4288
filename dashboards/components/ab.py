"""Recordings of the same length side by side, with shared playback controls and a switch for the audible one."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from dash import html
from dash.development.base_component import Component

from dashboards.media import audio_url, find_audio, level_url, missing_audio, spectrogram_url
from workbench.studies.study import Study

Media = Callable[[Study, str], dict[str, object]]
"""Addresses of the sound (`audio`) and the picture (`mel`) of a recording, and its `level`, by its path."""


@dataclass(frozen=True)
class Side:
    """One recording: its name, a detail beside it, a note below, and its audio's path relative to the study.

    The parts of the note at odd places are marked (see `dashboards.differences.marked`). Recordings that have a
    `strength` are also chosen with a slider.
    """

    name: str
    detail: str
    note: tuple[str, ...]
    path: str
    strength: float | None = None


def ab_player(id: str) -> Component:
    """An A/B player without recordings: its property `data-sides` (see `ab_sides`) says what it plays.

    A callback that sets the property replaces only what differs: playback, position and the audible recording are
    kept. Returned as part of a callback's `children`, the player would start anew.
    """
    return html.Div(
        id=id,
        className="ab",
        role="group",
        tabIndex=-1,
        hidden=True,
        **{"aria-label": "compare by ear", "data-sides": "{}"},
    )


def served(study: Study, path: str) -> dict[str, object]:
    """Where a page finds a recording's sound, picture and level on its server."""
    del study
    return {"audio": audio_url(path), "mel": spectrogram_url(path), "level": level_url(path)}


def ab_sides(
    study: Study,
    sides: list[Side],
    seconds: float,
    caption: str = "",
    heard: str = "",
    media: Media = served,
) -> str:
    """The property `data-sides` of an A/B player for `sides`, all `seconds` long; a sentence replaces missing files.

    A new `heard`, the name of a side, makes that side the audible one. `media` says where sounds and pictures are.
    """
    described = [_described(study, side, media) for side in sides]
    return json.dumps({"caption": caption, "seconds": seconds, "heard": heard, "sides": described})


def _described(study: Study, side: Side, media: Media) -> dict[str, object]:
    texts = {"name": side.name, "detail": side.detail, "note": side.note, "strength": side.strength}
    if find_audio(study, side.path.removeprefix("audio/")) is None:
        return {**texts, "missing": missing_audio(side.path)}
    return {**texts, **media(study, side.path)}
