"""The dashboard of a study."""

import html
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dash
from dash.development.base_component import Component
from dash.exceptions import DependencyException
from flask_compress import Compress
from rich.console import Console
from rich.text import Text

from cache.errors import UserError
from dashboards import feature_browser, shell
from dashboards.address import LOCAL, Address
from dashboards.away import add_away
from dashboards.callback_requests import add_check
from dashboards.components import export
from dashboards.components.notices import report_failure
from dashboards.context import Context
from dashboards.guard import add_guard
from dashboards.jobs import Jobs
from dashboards.links import mount
from dashboards.media import add_media_routes
from dashboards.packs import readable_packs
from dashboards.pictures import warm_up
from dashboards.results import problems
from dashboards.server import make_server, open_socket
from dashboards.studies_folder import StudiesFolder
from dashboards.versions import own_version, study_fault
from workbench.studies.study import Study

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SCHEME = "scheme.js"
"""The script that chooses light or dark colours, in the head of the page; Dash adds the others at its end."""
ASSETS = Path(__file__).parent / "assets"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<script src="{prefix}assets/{scheme}"></script><title>{%title%}</title>{%favicon%}{%css%}
<link rel="preload" as="fetch" crossorigin href="{prefix}_dash-layout">
<link rel="preload" as="fetch" crossorigin href="{prefix}_dash-dependencies"></head>
<body data-again="{again}">{%app_entry%}{%config%}{%scripts%}{%renderer%}</body>
</html>"""
"""What Dash asks for once its scripts run is asked for at once. `again` is for `connection.js`."""


class Dashboard:
    """The WSGI application of a study's dashboard; `app` is its Dash app.

    The app is made anew when the study's own files change, as when the study is extended; open pages continue with it.
    """

    def __init__(self, context: Context, address: Address) -> None:
        self._address = address
        self._context = context
        self._lock = threading.Lock()
        self._version = own_version(context.study.path)
        self.app = make_app(context, address)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        with self._lock:
            self._follow()
        return self.app.server(environ, start_response)

    def _follow(self) -> None:
        """Open the study again if its own files have changed; while they are half-written, it stays as it was."""
        path = self._context.study.path
        version = own_version(path)
        if version != self._version:
            with suppress(UserError):
                self._context = replace(self._context, study=Study.open(path))
                self.app = make_app(self._context, self._address)
                self._version = version


def create_app(
    study_path: Path,
    address: Address = LOCAL,
    *,
    compare: Path | None = None,
    published: Path | None = None,
) -> dash.Dash:
    """Create a study's Dash app; its maps can be compared with those of `compare` (a study) and `published` (a table).

    Raises:
        UserError: the folder is not a study, `compare` or `published` cannot be read, or the address has an invalid
            host name or prefix.
    """
    return make_app(open_context(study_path, compare=compare, published=published), address)


def open_context(
    study_path: Path,
    *,
    compare: Path | None = None,
    published: Path | None = None,
    folder: StudiesFolder | None = None,
    jobs: Jobs | None = None,
) -> Context:
    """Open what the pages of a dashboard share.

    Raises:
        UserError: the folder is not a study, or `compare` or `published` cannot be read.
    """
    context = Context(Study.open(study_path), compare, published, folder, jobs or Jobs())
    context.check()
    return context


def make_app(context: Context, address: Address) -> dash.Dash:
    """Make the Dash app of a context; raise UserError if the address has an invalid host name or prefix."""

    def register(app: dash.Dash) -> None:
        shell.register(app, context)
        export.register(app, context)
        add_media_routes(app.server, context.study)

    title = f"{context.study.path.resolve().name} · workbench"
    path = context.study.path
    return bare_app(title, address, lambda: shell.shell(context), register, lambda: study_fault(path))


def bare_app(
    title: str,
    address: Address,
    layout: Callable[[], Component],
    register: Callable[[dash.Dash], None],
    fault: Callable[[], str],
) -> dash.Dash:
    """Make a guarded Dash app; `register` adds its callbacks and routes.

    `fault` returns a sentence as long as what the app shows is away, and "" otherwise.

    Raises:
        UserError: the address has an invalid host name or prefix.
    """
    address.check()
    app = dash.Dash(
        "workbench",
        assets_folder=str(ASSETS),
        assets_ignore=re.escape(SCHEME),
        index_string=_page(address),
        title=html.escape(title),  # Dash does not escape it
        update_title=None,
        serve_locally=True,
        requests_pathname_prefix=address.url_prefix,
        routes_pathname_prefix="/",  # the server strips the prefix if the proxy did not
        suppress_callback_exceptions=True,  # components exist only while their page is shown
        on_error=report_failure,
    )
    mount(app.server, address.url_prefix)
    Compress(app.server)
    app.layout = layout
    register(app)
    add_guard(app.server, address, app.csp_hashes())
    add_away(app.server, fault)
    add_check(app.server, app)
    app.server.register_error_handler(DependencyException, _no_such_script)
    return app


def _page(address: Address) -> str:
    """The template of an app's page, which Dash fills in."""
    again = html.escape(address.again).replace("{", "&#123;")  # which begins the parts that Dash fills in
    return PAGE.replace("{prefix}", address.url_prefix).replace("{scheme}", SCHEME).replace("{again}", again)


def _no_such_script(error: Exception) -> tuple[str, int]:
    """Answer requests for scripts that Dash does not have, for which it raises an error."""
    del error
    return "", 404


def serve(
    study_path: Path,
    address: Address = LOCAL,
    *,
    compare: Path | None = None,
    published: Path | None = None,
    jobs: Jobs | None = None,
    page: str = "/",
) -> None:
    """Serve a study's dashboard until interrupted; `jobs` are its own background jobs, and `page` is named first.

    Raises:
        UserError: the study or the address cannot be used.
    """
    context = open_context(study_path, compare=compare, published=published, jobs=jobs)
    run(Dashboard(context, address), study_path, address, lambda: read_ahead(context.study), page)


def run(
    application: "WSGIApplication",
    path: Path,
    address: Address,
    prepare: Callable[[], None] = warm_up,
    page: str = "/",
) -> None:
    """Run the server of `path`'s dashboard until interrupted; `prepare` is called meanwhile."""
    with open_socket(address.host, address.port) as listening:
        for sentence in welcome(path, address, listening.getsockname()[1], page):
            Console(stderr=True).print(Text(sentence), soft_wrap=True)
        threading.Thread(target=prepare, daemon=True).start()
        make_server(application, listening, address).run()  # until Ctrl-C


def read_ahead(study: Study) -> None:
    """Read the results and vectors and draw a picture, so that the first visitor does not wait for it."""
    warm_up()
    with suppress(UserError):
        problems(study)
        feature_browser.read_ahead(study)
        readable_packs(study)


def welcome(study_path: Path, address: Address, port: int, page: str = "/") -> list[str]:
    """The lines printed to the terminal when the dashboard starts."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    url = f"http://{host}:{port}{address.url_prefix}{page.lstrip('/')}"
    sentences = [f"Dashboard of {study_path}: {url} (stop with Ctrl-C)"]
    if not address.is_local:
        sentences.append(
            f"It listens on {address.host} and has no password: anyone who can reach port {port} can see and hear what "
            "it shows, and export figures into it."
        )
    return sentences
