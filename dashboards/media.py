"""The routes beside Dash's own: audio, its pictures, and the headers that keep a browser on this machine."""

from pathlib import Path

from flask import Flask, Response, abort, request, send_file
from flask.typing import ResponseReturnValue

from cache.errors import UserError
from dashboards.pictures import activation_png, activation_svg, spectrogram_png
from dashboards.results import load_result
from dashboards.traces import activation_trace
from workbench.study import Study


def find_audio(study: Study, name: str) -> Path | None:
    """The FLAC file `audio/<name>` of a study; None when there is none or it lies outside, links followed."""
    room = (study.path / "audio").resolve()
    try:
        file = (room / name).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name with a null byte
        return None
    inside = file.is_relative_to(room) and file.suffix == ".flac" and file.is_file()
    return file if inside else None


def audio_url(path: str) -> str:
    """Address of an audio file, from its path relative to the study."""
    return f"/{path}"


def spectrogram_url(path: str) -> str:
    """Address of the spectrogram of an audio file, from its path relative to the study."""
    return f"/spectrogram/{path.removeprefix('audio/')}.png"


def add_media_routes(server: Flask, study: Study) -> None:
    """Serve the study's audio (with byte ranges, so that players can seek), spectrograms and activation pictures."""

    def audio(name: str) -> Response:
        return send_file(_found(study, name), mimetype="audio/flac", conditional=True)

    def spectrogram(name: str) -> Response:
        return Response(spectrogram_png(_found(study, name)), mimetype="image/png")

    def activation(site: str, feature: int, clip: int, kind: str) -> ResponseReturnValue:
        try:
            result = load_result(study, f"sae-{site}")
            known = feature in result["feature"].values and clip in study.clips["clip"].to_numpy()
            trace = activation_trace(study, site, feature, clip) if known else None
        except UserError as error:
            abort(404, str(error))
        if trace is None:
            abort(404)
        if kind == "png":
            return Response(activation_png(trace), mimetype="image/png")
        maximum = float(result["max_activation"].sel(feature=feature))
        return Response(activation_svg(trace, maximum), mimetype="image/svg+xml")

    def refuse_unknown() -> None:
        """Dash answers addresses that it does not know with its page; below ours there is none."""
        if (
            request.path.startswith(("/audio/", "/spectrogram/", "/activation/"))
            and request.endpoint not in endpoints
        ):
            abort(404)

    endpoints = ("audio", "spectrogram", "activation")
    server.add_url_rule("/audio/<path:name>", view_func=audio)
    server.add_url_rule("/spectrogram/<path:name>.png", view_func=spectrogram)
    server.add_url_rule(
        "/activation/<site>/<int:feature>/<int:clip>.<any(png, svg):kind>", view_func=activation
    )
    server.before_request(refuse_unknown)


def _found(study: Study, name: str) -> Path:
    file = find_audio(study, name)
    if file is None:
        abort(404)
    return file


def add_security_headers(server: Flask, script_hashes: list[str]) -> None:
    """Let pages load from this server only; `script_hashes` are the hashes of Dash's own inline scripts, quoted."""
    policy = "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' {' '.join(script_hashes)}",
            # Plotly, Mantine and AG Grid set styles from scripts.
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )

    def set_headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    server.after_request(set_headers)
