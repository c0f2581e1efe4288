"""Parse JSON documents from untrusted sources, with bounded nesting."""

from pathlib import Path
from typing import Any

from cache.opening import read_file
from cache.protocol import parse_json

MAX_NESTING = 64


def read_document(root: Path, name: str | Path, limit: int) -> dict[str, Any]:
    """Read the JSON object in a file of at most `limit` bytes inside the folder `root`.

    Raises:
        ValueError: as `parse_document` does.
        FileNotFoundError, cache.opening.UnsafeFile: as `cache.opening.open_file` does.
    """
    return parse_document(read_file(root, name, limit))


def parse_document(text: bytes | str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: if it is not JSON, not an object, or nested more than `MAX_NESTING` deep (Python can parse deeper
            JSON than it can compare, print or write).
    """
    value = parse_json(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _inside(value: Any) -> list[Any]:
    children = list(value.values()) if isinstance(value, dict) else value
    return [inner for inner in children if isinstance(inner, dict | list)]
