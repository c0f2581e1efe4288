"""JSON documents of anybody, nested no deeper than what this package writes."""

from pathlib import Path
from typing import Any

from cache.opening import read_file
from cache.protocol import parse_json

MAX_NESTING = 64


def read_document(root: Path, name: str | Path, limit: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes inside the folder `root`.

    Raises:
        ValueError: as `parse_document` does.
        FileNotFoundError, cache.opening.UnsafeFile: as `cache.opening.open_file` does.
    """
    return parse_document(read_file(root, name, limit))


def parse_document(text: bytes | str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: if it is no JSON, no object, or nested more than `MAX_NESTING` deep: Python can read somewhat
            deeper JSON than it can then compare, print or write.
    """
    value = parse_json(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("its brackets are nested too deep")


def _inside(value: Any) -> list[Any]:
    held = list(value.values()) if isinstance(value, dict) else value
    return [inner for inner in held if isinstance(inner, dict | list)]
