"""Addresses of pages and files, and the selection in the address of a page, so that a view can be shared."""

from urllib.parse import parse_qsl, quote, urlencode

from flask import Flask, current_app, has_app_context

_MOUNT = "APPLICATION_ROOT"  # Flask's own name for the path below which an application is offered


def mount(server: Flask, url_prefix: str) -> None:
    """Offer all addresses of a server below a prefix that begins and ends with a slash."""
    server.config[_MOUNT] = url_prefix


def _prefix() -> str:
    return str(current_app.config[_MOUNT]) if has_app_context() else "/"


def address(path: str) -> str:
    """The address of a page or file of this dashboard, from its path ("/patching"), which may have any characters."""
    return _prefix() + quote(path.lstrip("/"))


def page_path(pathname: str | None) -> str:
    """The path of a page ("/patching") in the path of an address, without prefix and last slash."""
    inner = (pathname or "/").rstrip("/").removeprefix(_prefix().rstrip("/"))
    return inner or "/"


def read_query(search: str | None) -> dict[str, str]:
    """The selection in the query part of an address: `?concept=drums&arm=tf3` gives its names and values."""
    return dict(parse_qsl((search or "").removeprefix("?")))


def write_query(selection: dict[str, str | int | None]) -> str:
    """The query part of an address for a selection; None and "" are left out."""
    kept = {name: value for name, value in selection.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else ""


def change_query(search: str | None, **changes: str | int | None) -> str:
    """The query part of an address with some of its values changed."""
    return write_query({**read_query(search), **changes})
