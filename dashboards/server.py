"""The HTTP server: waitress, with limits on connections, requests, and idle or slow clients."""

import logging
import select
import socket
import time
from typing import TYPE_CHECKING

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer

from cache.errors import UserError
from dashboards.address import Address

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

THREADS = 8
# Python's select() on Windows takes 512 sockets, and a process may often open no more than 1024 files.
CONNECTIONS = 500
TIMEOUT_SECONDS = 30
CLEANUP_SECONDS = 5
LARGEST_REQUEST = 16 * 2**20
STOP_SECONDS = 1  # wait for responses in progress at Ctrl-C; their threads end with the process


class _Request(HTTPRequestParser):
    """A request that records when it began."""

    def __init__(self, adj: object) -> None:
        super().__init__(adj)
        self.began = time.time()


class _Channel(HTTPChannel):
    parser_class = _Request


class Server(TcpWSGIServer):
    """A waitress server that also closes connections whose request arrives too slowly.

    Waitress itself closes only idle connections, and counts every byte as activity.
    """

    channel_class = _Channel

    def run(self) -> None:
        """Serve until Ctrl-C, then wait at most `STOP_SECONDS` for responses in progress (waitress waits five)."""
        try:
            self.asyncore.loop(
                timeout=self.adj.asyncore_loop_timeout, map=self._map, use_poll=self.adj.asyncore_use_poll
            )
        except (SystemExit, KeyboardInterrupt):
            self.task_dispatcher.shutdown(timeout=STOP_SECONDS)

    def maintenance(self, now: float) -> None:
        """Close connections that have been idle, or sending one request, for longer than the timeout."""
        super().maintenance(now)
        for channel in self.active_channels.values():
            unfinished = channel.request
            if unfinished is not None and unfinished.began < now - self.adj.channel_timeout:
                channel.will_close = True


def make_server(application: "WSGIApplication", listening: socket.socket, address: Address) -> Server:
    """A server for a WSGI application on a listening socket; `run()` serves until Ctrl-C.

    Requests may come with or without the address's prefix: some proxies strip it.
    """
    # Warnings about full queues do not help the user at the terminal.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    return Server(
        application,
        _sock=listening,
        bind_socket=False,
        sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
        url_prefix=address.script_name,
        threads=THREADS,
        connection_limit=CONNECTIONS,
        channel_timeout=TIMEOUT_SECONDS,
        cleanup_interval=CLEANUP_SECONDS,
        max_request_body_size=LARGEST_REQUEST,
        asyncore_use_poll=hasattr(select, "poll"),  # select() cannot watch sockets numbered above 1023
        ident="",
    )


def open_socket(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        UserError: the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise UserError(
            f"The server cannot listen on {host}:{port} ({reason}): choose a free --port, or this machine's --host."
        ) from error
