"""URLs of pages and files, and the selection in a page's URL, so that views can be shared."""

from urllib.parse import parse_qsl, quote, urlencode

from flask import Flask, current_app, has_app_context

_MOUNT = "APPLICATION_ROOT"  # Flask's name for the path under which an application is served


def mount(server: Flask, url_prefix: str) -> None:
    """Serve all URLs of a server under a prefix that begins and ends with a slash."""
    server.config[_MOUNT] = url_prefix


def _prefix() -> str:
    return str(current_app.config[_MOUNT]) if has_app_context() else "/"


def address(path: str) -> str:
    """The URL of a page or file of this dashboard from its path ("/patching"), which may contain any characters."""
    return _prefix() + quote(path.lstrip("/"))


def page_path(pathname: str | None) -> str:
    """The path of a page ("/patching") from the path of a URL, without prefix or trailing slash."""
    inner = (pathname or "/").rstrip("/").removeprefix(_prefix().rstrip("/"))
    return inner or "/"


def read_query(search: str | None) -> dict[str, str]:
    """The selection in a query string such as `?concept=drums&arm=tf3`, as names and values."""
    return dict(parse_qsl((search or "").removeprefix("?")))


def read_parts(search: str | None) -> dict[str, str]:
    """All names in a query string, with their values: "" for those that `read_query` leaves out, as they have none."""
    return dict(parse_qsl((search or "").removeprefix("?"), keep_blank_values=True))


def write_query(selection: dict[str, str | int | None]) -> str:
    """The query string for a selection; None and "" are left out."""
    kept = {name: value for name, value in selection.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else ""


def change_query(search: str | None, **changes: str | int | None) -> str:
    """A query string with some of its values changed."""
    return write_query({**read_query(search), **changes})
