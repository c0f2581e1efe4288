"""The dashboard of a study."""

import socket
import threading
from pathlib import Path

import dash
from rich.console import Console
from werkzeug.serving import WSGIRequestHandler, make_server

from cache.errors import UserError
from dashboards import shell
from dashboards.components import export
from dashboards.components.export import notify
from dashboards.media import add_media_routes, add_security_headers
from dashboards.others import Others
from dashboards.pictures import warm_up
from dashboards.shell import NOTHING
from workbench.study import Study

ASSETS = Path(__file__).parent / "assets"


def create_app(study_path: Path, others: Others = NOTHING) -> dash.Dash:
    """The Dash app of a study; raises UserError when the folder is no study, or `others` cannot be read."""
    study = Study.open(study_path)
    others.check()
    others = others.with_imported(study)
    app = dash.Dash(
        "workbench",
        assets_folder=str(ASSETS),
        title=f"{study.path.resolve().name} · workbench",
        update_title=None,
        serve_locally=True,
        suppress_callback_exceptions=True,  # a page's components exist only while it is shown
        on_error=_tell_user,
    )
    app.layout = shell.shell(study, others)
    shell.register(app, study, others)
    export.register(app, study, others)
    add_media_routes(app.server, study)
    add_security_headers(app.server, app.csp_hashes())
    return app


def _tell_user(error: Exception) -> None:
    """Show what a user can understand and act on; everything else is a fault of the program and is raised."""
    if not isinstance(error, UserError):
        raise error
    notify("That did not work", str(error), "red")


class _Quiet(WSGIRequestHandler):
    """Serves without a line on the terminal for every request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def serve(study_path: Path, host: str = "127.0.0.1", port: int = 8050, others: Others = NOTHING) -> None:
    """Serve a study's dashboard until interrupted; raises UserError when the study or the address cannot be used."""
    app = create_app(study_path, others)
    with open_socket(host, port) as listening:
        address = f"http://{host}:{listening.getsockname()[1]}/"
        server = make_server(
            host, port, app.server, threaded=True, request_handler=_Quiet, fd=listening.fileno()
        )
        Console(stderr=True).print(f"Dashboard of {study_path}: {address} (stop with Ctrl-C)")
        threading.Thread(target=warm_up, daemon=True).start()
        server.serve_forever()  # until Ctrl-C


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket at the address; raises UserError when it is taken or not this machine's."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise UserError(
            f"The dashboard cannot listen on {host}:{port} ({reason}): give a free --port, or this machine's --host."
        ) from error
