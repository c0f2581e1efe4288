"""The dashboard of a study."""

import html
import threading
from pathlib import Path

import dash
from dash.exceptions import DependencyException
from rich.console import Console
from rich.text import Text

from dashboards import shell
from dashboards.address import LOCAL, Address
from dashboards.callback_requests import add_check
from dashboards.components import export
from dashboards.components.notices import report_failure
from dashboards.context import Context
from dashboards.guard import add_guard
from dashboards.links import mount
from dashboards.media import add_media_routes
from dashboards.pictures import warm_up
from dashboards.server import make_server, open_socket
from workbench.studies.study import Study

ASSETS = Path(__file__).parent / "assets"


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
    address.check()
    study = Study.open(study_path)
    context = Context(study, compare, published)
    context.check()
    app = dash.Dash(
        "workbench",
        assets_folder=str(ASSETS),
        title=html.escape(f"{study.path.resolve().name} · workbench"),  # Dash does not escape it
        update_title=None,
        serve_locally=True,
        requests_pathname_prefix=address.url_prefix,
        routes_pathname_prefix="/",  # the server strips the prefix if the proxy did not
        suppress_callback_exceptions=True,  # components exist only while their page is shown
        on_error=report_failure,
    )
    mount(app.server, address.url_prefix)
    app.layout = lambda: shell.shell(context)
    shell.register(app, context)
    export.register(app, context)
    add_media_routes(app.server, study)
    add_guard(app.server, address, app.csp_hashes())
    add_check(app.server, app)
    app.server.register_error_handler(DependencyException, _no_such_script)
    return app


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
) -> None:
    """Serve a study's dashboard until interrupted.

    Raises:
        UserError: the study or the address cannot be used.
    """
    app = create_app(study_path, address, compare=compare, published=published)
    with open_socket(address.host, address.port) as listening:
        for sentence in welcome(study_path, address, listening.getsockname()[1]):
            Console(stderr=True).print(Text(sentence), soft_wrap=True)
        threading.Thread(target=warm_up, daemon=True).start()
        make_server(app.server, listening, address).run()  # until Ctrl-C


def welcome(study_path: Path, address: Address, port: int) -> list[str]:
    """The lines printed to the terminal when the dashboard starts."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    sentences = [f"Dashboard of {study_path}: http://{host}:{port}{address.url_prefix} (stop with Ctrl-C)"]
    if not address.is_local:
        sentences.append(
            f"It listens on {address.host} and has no password: anyone who can reach port {port} can see and hear this "
            "study, and export figures into it."
        )
    return sentences
