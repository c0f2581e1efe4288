"""A dashboard on a port of its own, as `workbench dashboard` serves it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dash
from waitress import wasyncore

from dashboards.address import Address
from dashboards.server import Server, make_server, open_socket


@contextmanager
def running(app: dash.Dash, address: Address = Address()) -> Iterator[Server]:  # noqa: B008
    """The server of an app on a free port of this machine, until the end of the block."""
    with open_socket("127.0.0.1", 0) as listening:
        server = make_server(app.server, listening, address)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))  # ends the loop of `run`
            thread.join()
            server.task_dispatcher.shutdown()


@contextmanager
def served(app: dash.Dash, address: Address = Address()) -> Iterator[str]:  # noqa: B008
    """The address of a running app, without its last slash."""
    with running(app, address) as server:
        yield f"http://127.0.0.1:{server.effective_port}"
