"""Where a dashboard is found: the address it listens on, the names it answers to, and the prefix of a proxy."""

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
    """Where a dashboard listens, and how browsers may reach it.

    `names` are further host names by which a proxy is reached, `prefix` the path below which it puts the dashboard
    (without one, that of the environment variable DASH_REQUESTS_PATHNAME_PREFIX), `frames` lets pages of the same
    origin, such as JupyterLab's, show the dashboard in a frame.
    """

    host: str = "127.0.0.1"
    port: int = 8050
    names: tuple[str, ...] = ()
    prefix: str = ""
    frames: bool = False

    def check(self) -> None:
        """Raise UserError for a name or a prefix that is none."""
        for name in self.names:
            if host_name(name) != name.lower():
                raise UserError(
                    f"'{name}' is no host name: --allow-host takes a name such as hub.example.org, without https://, "
                    "port and path."
                )
        if not _PREFIX.fullmatch(self.url_prefix):
            raise UserError(
                f"'{self.url_prefix}' is no URL prefix: give --url-prefix (or {PREFIX_VARIABLE}) the path below "
                "which the proxy offers the dashboard, such as /user/me/proxy/8050/."
            )

    @property
    def url_prefix(self) -> str:
        """The path of the dashboard's first page as browsers see it: "/", or "/user/me/proxy/8050/"."""
        inner = (self.prefix or os.environ.get(PREFIX_VARIABLE, "")).strip("/")
        return f"/{inner}/" if inner else "/"

    @property
    def script_name(self) -> str:
        """The prefix as a WSGI server compares it with paths: decoded, without its last slash."""
        return unquote_to_bytes(self.url_prefix.rstrip("/")).decode("latin-1")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in LOOPBACK or (
            _is_number(self.host) and ipaddress.ip_address(self.host).is_loopback
        )

    def answers_to(self, host: str | None) -> bool:
        """Whether a browser that sent this Host header meant this dashboard.

        A name that was re-bound to this machine's address (DNS rebinding) is a stranger's; an address in numbers cannot
        be re-bound.
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
    """The name in a Host header or in the place of one, without its port, in small letters; None when it is none."""
    found = _HOST.fullmatch(host.lower())
    return (found["v6"] or found["name"]) if found else None


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
