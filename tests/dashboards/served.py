"""Serve a dashboard on a free port, as `workbench dashboard` does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dash
from waitress import wasyncore

from dashboards.address import Address
from dashboards.server import Server, make_server, open_socket

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@contextmanager
def running(
    app: "dash.Dash | WSGIApplication",
    address: Address = Address(),  # noqa: B008
) -> Iterator[Server]:
    """Run an app's server on a free local port until the end of the block."""
    application = app.server if isinstance(app, dash.Dash) else app
    with open_socket("127.0.0.1", 0) as listening:
        server = make_server(application, listening, address)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            channels: dict[int, object] = {}

            def stop() -> None:
                channels.update(server._map)
                server._map.clear()  # an empty map ends the loop of `run`

            server.trigger.pull_trigger(stop)
            thread.join()
            server.task_dispatcher.shutdown()
            # Closed last: workers write to the trigger, and `stop` may run before `pull_trigger` has written to it.
            wasyncore.close_all(channels)


@contextmanager
def served(
    app: "dash.Dash | WSGIApplication",
    address: Address = Address(),  # noqa: B008
) -> Iterator[str]:
    """Run an app; yields its URL without the trailing slash."""
    with running(app, address) as server:
        yield f"http://127.0.0.1:{server.effective_port}"
