"""A player: the mel spectrogram of a clip with a playhead over it, and the audio's controls."""

from dash import html
from dash.development.base_component import Component

from dashboards.components.text import hint
from dashboards.media import audio_url, find_audio, spectrogram_url
from workbench.studies.study import Study

PICTURE_HELP = "Mel spectrogram with a range of 80 dB. Click to seek."
STRIP_HELP = "The feature's activation: denoising steps from top to bottom, time from left to right."


def player(
    study: Study, path: str, seconds: float, overlay: str | None = None, strip: str | None = None
) -> Component:
    """Return a player for the audio at `path` (relative to the study), `seconds` long; a note if the file is missing.

    `overlay` is the URL of an image drawn over the spectrogram, `strip` of one below it, on the same time axis.
    """
    if find_audio(study, path.removeprefix("audio/")) is None:
        return hint(f"The audio file {path} is missing from the study.")
    layers = [html.Img(src=spectrogram_url(path), className="mel", alt="mel spectrogram", title=PICTURE_HELP)]
    if overlay is not None:
        layers.append(html.Img(src=overlay, className="overlay", alt="activation over time"))
    layers.append(html.Div(className="playhead"))
    parts = [html.Div(layers, className="picture")]
    if strip is not None:
        parts.append(html.Img(src=strip, className="strip", alt="activation at each step", title=STRIP_HELP))
    ticks = [html.Span(f"{seconds * fraction:g} s") for fraction in (0, 0.5, 1)]
    parts.append(html.Div(ticks, className="seconds"))
    parts.append(html.Audio(src=audio_url(path), controls=True, preload="metadata"))
    return html.Div(parts, className="player")
