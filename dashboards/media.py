"""Routes for audio, its loudness, images of audio, and a health check."""

from pathlib import Path

from flask import Flask, Response, abort, request, send_file
from flask.typing import ResponseReturnValue

from cache.errors import UserError
from cache.opening import UnsafeFile, checked_path
from dashboards.levels import recording_level
from dashboards.links import address
from dashboards.pictures import activation_png, activation_svg, spectrogram_png
from dashboards.results import has_result, load_result
from dashboards.traces import activation_total, activation_trace
from dashboards.versions import shown_version
from workbench.studies.study import Study


def missing_audio(path: str) -> str:
    """A sentence on a recording that is gone, and how to make it again."""
    by = "`workbench trace`" if path.startswith("audio/clips/") else "the command that made it"
    return (
        f"The audio file {path} is missing from the study. Run {by} again, with the same options, to make it."
    )


def find_audio(study: Study, name: str) -> Path | None:
    """The FLAC file `audio/<name>` of a study; None if it does not exist, is a link or is outside the study."""
    try:
        found = name.endswith(".flac") and checked_path(study.path, f"audio/{name}")
    except (OSError, UnsafeFile):
        return None
    return found or None


def audio_url(path: str) -> str:
    """URL of an audio file, from its path relative to the study."""
    return address(path)


def spectrogram_url(path: str) -> str:
    """URL of the spectrogram of an audio file, from its path relative to the study."""
    return address(f"spectrogram/{path.removeprefix('audio/')}.png")


def level_url(path: str) -> str:
    """URL of the loudness of an audio file, from its path relative to the study."""
    return address(f"level/{path.removeprefix('audio/')}.json")


def activation_url(name: str, feature: int, clip: int, kind: str) -> str:
    """URL of an image of a feature's activation in a clip: "svg" is a line over time, "png" shows all steps."""
    return address(f"activation/{name}/{feature}/{clip}.{kind}")


def total_url(name: str, clip: int) -> str:
    """URL of an image of the activation of all features in a clip at all steps."""
    return address(f"activation/{name}/{clip}.png")


def add_media_routes(server: Flask, study: Study) -> None:
    """Serve the study's audio (with byte ranges, so that players can seek), its loudness, and images of it."""

    def audio(name: str) -> Response:
        file = _found(study, name).absolute()  # Flask resolves a relative path against the app's own folder
        return send_file(file, mimetype="audio/flac", conditional=True)

    def spectrogram(name: str) -> ResponseReturnValue:
        try:
            path = _found(study, name).relative_to(study.path).as_posix()
            return _picture(spectrogram_png(study, path), "image/png")
        except UserError as error:
            return _sentence(error)

    def level(name: str) -> dict[str, float] | Response:
        try:
            return {"lufs": recording_level(study, _found(study, name).relative_to(study.path).as_posix())}
        except UserError as error:
            return _sentence(error)

    def activation(name: str, feature: int, clip: int, kind: str) -> ResponseReturnValue:
        if not has_result(study, f"sae-{name}"):
            abort(404)
        try:
            result = load_result(study, f"sae-{name}")
            known = feature in result["feature"].values and clip in study.clips["clip"].to_numpy()
            trace = activation_trace(study, name, feature, clip) if known else None
        except UserError as error:
            return _sentence(error)
        if trace is None:
            abort(404)
        if kind == "png":
            return _picture(activation_png(trace), "image/png")
        maximum = float(result["max_activation"].sel(feature=feature))
        return _picture(activation_svg(trace, maximum), "image/svg+xml")

    def total(name: str, clip: int) -> ResponseReturnValue:
        if not has_result(study, f"sae-{name}") or clip not in study.clips["clip"].to_numpy():
            abort(404)
        try:
            return _picture(activation_png(activation_total(study, name, clip)), "image/png")
        except UserError as error:
            return _sentence(error)

    def refuse_unknown() -> None:
        """Answer 404 under these routes, where Dash would answer unknown URLs with its page."""
        if (
            request.path.startswith(("/audio/", "/spectrogram/", "/level/", "/activation/"))
            and request.endpoint not in endpoints
        ):
            abort(404)

    def alive() -> tuple[str, int, dict[str, str]]:
        """Answer open pages that check whether the server is still running, and whether the study has changed."""
        return "", 204, {"Study-Version": shown_version(study.path)}

    endpoints = ("audio", "spectrogram", "level", "activation", "total")
    server.add_url_rule("/_alive", view_func=alive)
    server.add_url_rule("/audio/<path:name>", view_func=audio)
    server.add_url_rule("/spectrogram/<path:name>.png", view_func=spectrogram)
    server.add_url_rule("/level/<path:name>.json", view_func=level)
    server.add_url_rule(
        "/activation/<name>/<int:feature>/<int:clip>.<any(png, svg):kind>", view_func=activation
    )
    server.add_url_rule("/activation/<name>/<int:clip>.png", view_func=total)
    server.before_request(refuse_unknown)


def _picture(content: bytes | str, mimetype: str) -> Response:
    """A picture that browsers keep, and ask for again only whether it has changed."""
    response = Response(content, mimetype=mimetype)
    response.cache_control.private = True
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response


def _sentence(error: UserError) -> Response:
    """Explain why an image or a level cannot be had; the page shows the sentence in its place."""
    return Response(str(error), 422, mimetype="text/plain")


def _found(study: Study, name: str) -> Path:
    file = find_audio(study, name)
    if file is None:
        abort(404)
    return file
