"""The server of a listening study: a listener's pages, the audio under its blind names, and the answers.

It logs nothing about listeners, and sets no cookies: a listener's link has a random token.
"""

import html
import io
import socket
from pathlib import Path
from types import TracebackType

from flask import Flask, Response, abort, jsonify, request, send_file
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError
from rich.console import Console
from rich.text import Text
from werkzeug.exceptions import HTTPException

from cache.errors import UserError
from cache.opening import UnsafeFile
from dashboards.address import EVERYWHERE, Address
from dashboards.guard import add_guard
from dashboards.listening.links import write_links
from dashboards.server import make_server, open_socket
from workbench.listening.answers import study_id
from workbench.listening.config import ListeningConfig
from workbench.listening.folder import read_config, read_stimulus
from workbench.listening.forms import Form, form_of
from workbench.listening.orders import steps_of
from workbench.listening.store import AnswerStore, Listener

PAGE = Path(__file__).parent / "page"
LARGEST_REQUEST = 2**14
MOST_STARTED = 1000
"""Listeners who can start on this machine without a link."""
_NO_LINK = "This listening study needs a personal link. Ask whoever invited you.\n"


class _Given(BaseModel):
    """What a page sends: its number, the answers in order, and the clips that were heard to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: StrictInt = Field(ge=0, le=10_000)
    answers: list[StrictInt] = Field(max_length=50)
    heard: list[StrictInt] = Field(max_length=50)


class _Server(Flask):
    """A Flask application whose log has no addresses of pages, which have the listeners' tokens."""

    def log_exception(
        self,
        exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> None:
        """Log an error without saying of which page."""
        self.logger.error("A page could not be answered.", exc_info=exc_info)


def create_server(folder: Path, address: Address, is_open: bool) -> Flask:
    """Create the application of the listening study in a folder; if it `is_open`, anyone may start without a link.

    Raises:
        UserError: if the folder is no listening study, or the address has an invalid host name or prefix.
    """
    address.check()
    config = read_config(folder)
    store = AnswerStore(folder, study_id(config))
    server = _Server("listening", static_folder=None)
    server.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    _add_pages(server, config, store, is_open)
    _add_audio(server, folder, config, store)
    add_guard(server, address, [], inline_styles=False)
    server.after_request(_unstored)
    server.register_error_handler(HTTPException, _plain)
    server.register_error_handler(UserError, _unusable)
    return server


def serve(folder: Path, address: Address, listeners: int = 0) -> None:
    """Serve a listening study until interrupted.

    Args:
        folder: the listening study.
        address: where to listen; others than this machine can reach it only with links.
        listeners: how many personal links there must be; they are written to `links.csv`. With 0, anyone on this
            machine may start.

    Raises:
        UserError: if the study or the address cannot be used, or others could reach it without links.
    """
    is_open = listeners == 0
    if is_open and not (address.is_local and not address.names):
        raise UserError(
            "Others than this machine can reach the study. Give every listener a link of their own: add --listeners "
            "with their number."
        )
    server = create_server(folder, address, is_open)
    with open_socket(address.host, address.port) as listening:
        console, port = Console(stderr=True), listening.getsockname()[1]
        url = _url(address, port)
        config = read_config(folder)
        if is_open:
            sentence = f"Listening study {folder}: {url} (stop with Ctrl-C)"
        else:
            file = write_links(folder, config, AnswerStore(folder, study_id(config)), listeners, url)
            sentence = f"Listening study {folder}: the listeners' links are in {file} (stop with Ctrl-C)"
        console.print(Text(sentence), soft_wrap=True)
        make_server(server, listening, address).run()


def _url(address: Address, port: int) -> str:
    """Return the address of the start page: a proxy's, with HTTPS, or the server's own."""
    if address.names:
        return f"https://{address.names[0]}{address.url_prefix}"
    host = socket.gethostname() if address.host in EVERYWHERE else address.host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{address.url_prefix}"


def _add_pages(server: Flask, config: ListeningConfig, store: AnswerStore, is_open: bool) -> None:
    """Add the start page, a listener's page, and what it asks for and sends."""
    page = (PAGE / "listen.html").read_text(encoding="utf-8")
    page = page.replace("{{title}}", html.escape(config.title))

    def start() -> Response:
        if not is_open:
            return Response(_NO_LINK, 404, mimetype="text/plain")
        return _page(page, "")

    def begin() -> Response:
        if not is_open:
            abort(404)
        listener = store.add_listener(lambda number: steps_of(config, number), most=MOST_STARTED)
        if listener is None:
            abort(503)
        return jsonify({"address": f"listener/{listener.token}/"})

    def listening(token: str) -> Response:
        _known(store, token)
        return _page(page, "../../")

    def step(token: str) -> Response:
        return _next(config, store, _known(store, token))

    def answers(token: str) -> Response:
        listener = _known(store, token)
        given = _given()
        if given.step == listener.answered:
            form = form_of(config, listener.steps[given.step])
            if listener.steps[given.step].kind == "end" or not _fits(form, given):
                abort(400)
            store.save(listener.number, given.step, given.answers)
        elif given.step > listener.answered:
            abort(409)
        # An earlier page was answered already: its first answer stays, and the page goes on.
        return _next(config, store, _known(store, token))

    server.add_url_rule("/", view_func=start)
    server.add_url_rule("/begin", view_func=begin, methods=["POST"])
    server.add_url_rule("/listener/<token>/", view_func=listening)
    server.add_url_rule("/listener/<token>/step", view_func=step)
    server.add_url_rule("/listener/<token>/answers", view_func=answers, methods=["POST"])
    for name, kind in (("listen.js", "text/javascript"), ("listen.css", "text/css")):
        content = (PAGE / name).read_bytes()
        server.add_url_rule(
            f"/page/{name}",
            endpoint=name,
            view_func=lambda content=content, kind=kind: Response(content, mimetype=kind),
        )


def _add_audio(server: Flask, folder: Path, config: ListeningConfig, store: AnswerStore) -> None:
    """Serve the stimuli under their blind names, with byte ranges, to listeners only."""
    stimuli = config.by_token

    def audio(token: str, name: str) -> Response:
        _known(store, token)
        if name not in stimuli:
            abort(404)
        try:
            content = read_stimulus(folder, stimuli[name])
        except (FileNotFoundError, UnsafeFile):
            abort(404)
        # From memory: headers tell neither when the file was written nor which others are like it.
        return send_file(io.BytesIO(content), mimetype="audio/wav", conditional=True, etag=False)

    server.add_url_rule("/listener/<token>/audio/<name>.wav", view_func=audio)


def _page(page: str, root: str) -> Response:
    return Response(page.replace("{{root}}", root), mimetype="text/html")


def _known(store: AnswerStore, token: str) -> Listener:
    listener = store.listener(token)
    if listener is None:
        abort(404)
    return listener


def _next(config: ListeningConfig, store: AnswerStore, listener: Listener) -> Response:
    """Return the first page without an answer, and remember that it is shown."""
    place = min(listener.answered, len(listener.steps) - 1)
    store.show(listener.number, place)
    form = form_of(config, listener.steps[place])
    return jsonify({"step": place, "of": len(listener.steps) - 1, "form": form.model_dump(mode="json")})


def _given() -> _Given:
    """Return what a page has sent; end with 400 if it is not what a page sends."""
    if request.mimetype != "application/json":
        abort(400)
    try:
        return _Given.model_validate_json(request.get_data())
    except ValidationError:
        abort(400)


def _fits(form: Form, given: _Given) -> bool:
    """Whether answers are allowed ones, given after all clips were heard."""
    return (
        len(given.answers) == len(form.fields)
        and all(field.allows(answer) for field, answer in zip(form.fields, given.answers, strict=True))
        and set(given.heard) == set(range(len(form.clips)))
    )


def _unstored(response: Response) -> Response:
    """Let browsers keep nothing: another listener may use the same one."""
    response.headers["Cache-Control"] = "no-store"
    return response


def _plain(error: HTTPException) -> Response:
    return Response(f"{error.name}\n", error.code, mimetype="text/plain")


def _unusable(error: UserError) -> Response:
    """Tell the page that an answer could not be stored, as on a full disk; the terminal shows why."""
    Console(stderr=True).print(Text(str(error)), soft_wrap=True)
    return Response("The answer could not be stored. Try again.\n", 503, mimetype="text/plain")
