"""Recordings of the same length side by side, with shared playback controls and a switch for the audible one."""

from dataclasses import dataclass

from dash import html
from dash.development.base_component import Component

from dashboards.components.text import hint
from dashboards.media import audio_url, find_audio, spectrogram_url
from workbench.studies.study import Study

HELP = "Space: play or pause. Arrow keys: skip 5 %. 1, 2, 3: choose the recording you hear."


@dataclass(frozen=True)
class Side:
    """One recording: its name, a detail beside it, a note below, and its audio's path relative to the study."""

    name: str
    detail: str
    note: str
    path: str


def ab_player(study: Study, sides: list[Side], seconds: float) -> Component:
    """Players for `sides`, all `seconds` long, that share their position; a hint replaces missing files."""
    there = [find_audio(study, side.path.removeprefix("audio/")) is not None for side in sides]
    playing = there.index(True) if any(there) else -1
    cards = [
        _card(side, number, exists, number == playing)
        for number, (side, exists) in enumerate(zip(sides, there, strict=True))
    ]
    play = html.Button("Play", className="ab-play", type="button", **{"aria-label": "play"})
    seek = html.Div(
        html.Div(className="ab-done"),
        className="ab-seek",
        role="slider",
        tabIndex=0,
        **{
            "aria-label": "position",
            "aria-valuemin": "0",
            "aria-valuemax": "100",
            "aria-valuenow": "0",
        },
    )
    time = html.Span(f"0.0 / {seconds:.1f} s", className="ab-time")
    return html.Div(
        [
            html.Div(cards, className="ab-sides", role="radiogroup", **{"aria-label": "audible recording"}),
            html.Div([play, seek, time], className="ab-transport"),
            html.Div(HELP, className="ab-help"),
        ],
        className="ab",
        role="group",
        tabIndex=0,
        **{"aria-label": "compare by ear", "data-seconds": f"{seconds:g}"},
    )


def _card(side: Side, number: int, exists: bool, playing: bool) -> Component:
    heading = [html.Span(f"{number + 1}", className="ab-number"), html.Span(side.name, className="ab-name")]
    switch = html.Button(
        [*heading, html.Span(side.detail, className="number ab-detail")],
        className="ab-switch",
        type="button",
        role="radio",
        disabled=not exists,
        **{"aria-checked": "true" if playing else "false", "aria-label": f"play {side.name}"},
    )
    note = html.Div(side.note, className="ab-note", title=side.note)
    if not exists:
        return html.Div(
            [switch, note, hint(f"The audio file {side.path} is missing from the study.")],
            className="ab-side",
        )
    mel = html.Img(src=spectrogram_url(side.path), className="mel", alt=f"mel spectrogram, {side.name}")
    audio = html.Audio(src=audio_url(side.path), preload="auto")
    picture = html.Div([mel, html.Div(className="playhead")], className="picture")
    return html.Div([switch, note, picture, audio], className="ab-side")
