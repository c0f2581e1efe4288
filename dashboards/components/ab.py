"""Recordings of the same length side by side, with shared playback controls and a switch for the audible one."""

import json
from dataclasses import dataclass

from dash import html
from dash.development.base_component import Component

from dashboards.media import audio_url, find_audio, level_url, spectrogram_url
from workbench.studies.study import Study


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


def ab_sides(study: Study, sides: list[Side], seconds: float, caption: str = "", heard: str = "") -> str:
    """The property `data-sides` of an A/B player for `sides`, all `seconds` long; a sentence replaces missing files.

    A new `heard`, the name of a side, makes that side the audible one.
    """
    described = [_described(study, side) for side in sides]
    return json.dumps({"caption": caption, "seconds": seconds, "heard": heard, "sides": described})


def _described(study: Study, side: Side) -> dict[str, object]:
    texts = {"name": side.name, "detail": side.detail, "note": side.note, "strength": side.strength}
    if find_audio(study, side.path.removeprefix("audio/")) is None:
        return {**texts, "missing": f"The audio file {side.path} is missing from the study."}
    urls = {
        "audio": audio_url(side.path),
        "mel": spectrogram_url(side.path),
        "level": level_url(side.path),
    }
    return {**texts, **urls}
