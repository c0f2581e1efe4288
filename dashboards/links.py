"""Selections in the address of a page, so that a view can be shared."""

from urllib.parse import parse_qsl, urlencode


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
