"""The address of a server: where it listens, the host names it answers to, and a proxy's URL prefix."""

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from cache.errors import UserError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::", ""})
PREFIX_VARIABLE = "DASH_REQUESTS_PATHNAME_PREFIX"
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\s:/@\[\]]+))(?::\d+)?")
_PREFIX = re.compile(r"/(?:(?!\.{1,2}/)[\w.~%@:+=,-]+/)*", re.ASCII)


@dataclass(frozen=True)
class Address:
    """The address a dashboard listens on, and how browsers may reach it.

    `names` are additional host names, such as a proxy's. `prefix` is the path under which a proxy serves the dashboard
    (default: the environment variable DASH_REQUESTS_PATHNAME_PREFIX). `frames` allows pages of the same origin, such as
    JupyterLab's, to show the dashboard in a frame. `again` is what open pages say of how to start the server again
    after it has been stopped.
    """

    host: str = "127.0.0.1"
    port: int = 8050
    names: tuple[str, ...] = ()
    prefix: str = ""
    frames: bool = False
    again: str = "Restart it with “workbench dashboard”."

    def check(self) -> None:
        """Raise UserError for an invalid host name or URL prefix."""
        for name in self.names:
            if host_name(name) != name.lower():
                raise UserError(
                    f"'{name}' is not a host name: --allow-host takes a name such as hub.example.org, without "
                    "https://, port or path."
                )
        if not _PREFIX.fullmatch(self.url_prefix):
            raise UserError(
                f"'{self.url_prefix}' is not a URL prefix: set --url-prefix (or {PREFIX_VARIABLE}) to the path under "
                "which the proxy serves the dashboard, such as /user/me/proxy/8050/."
            )

    @property
    def url_prefix(self) -> str:
        """The path of the dashboard's home page as browsers see it: "/" or "/user/me/proxy/8050/"."""
        inner = (self.prefix or os.environ.get(PREFIX_VARIABLE, "")).strip("/")
        return f"/{inner}/" if inner else "/"

    @property
    def script_name(self) -> str:
        """The prefix as a WSGI server compares it with paths: decoded, without the trailing slash."""
        return unquote_to_bytes(self.url_prefix.rstrip("/")).decode("latin-1")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK or (
            _is_number(self.host) and ipaddress.ip_address(self.host).is_loopback
        )

    def answers_to(self, host: str | None) -> bool:
        """Whether this Host header names this dashboard.

        Unknown names are rejected, since an attacker may have rebound them to this machine (DNS rebinding). A numeric
        address cannot be rebound.
        """
        name = host_name(host or "")
        if name is None:
            return False
        known = {*LOOPBACK, self.host.lower(), *(one.lower() for one in self.names)}
        if name in known:
            return True
        return self.host in EVERYWHERE and (name == socket.gethostname().lower() or _is_number(name))


LOCAL = Address()


def host_name(host: str) -> str | None:
    """The host name in a Host header or the like, in lower case and without its port; None if it is not valid."""
    found = _HOST.fullmatch(host.lower())
    return (found["v6"] or found["name"]) if found else None


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
