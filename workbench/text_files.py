"""Read text, YAML and JSON files written by users: strictly, in bounded time, with one sentence per mistake."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cache.errors import UserError

LARGEST_DOCUMENT = 2**22
"""Largest YAML or JSON file in bytes."""
LARGEST_TABLE = 2**28
"""Largest table, or text file used as one, in bytes."""

_DEEPEST = 50
_MOST_NODES = 200_000  # nested aliases could expand to billions
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16 and UTF-32
_NULLS = ("", "~", "null", "Null", "NULL")
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


def read_text(path: Path, largest: int) -> str:
    """Read a UTF-8 text file, without a byte order mark and with its original line endings.

    Raises:
        UserError: if it is missing, not a file, unreadable, in another encoding, or larger than `largest` bytes.
    """
    try:
        if not path.is_file():
            raise UserError(f"{no_file(path)} Give the path of a text file.")
        if path.stat().st_size > largest:
            raise UserError(f"{path} must have at most {largest:,} bytes.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a null character in a path
        raise UserError(f"{str(path)!r} is not a path.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
    if content.startswith(_WIDE_MARKS) or "\x00" in text:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.")
    return text


def no_file(path: Path) -> str:
    """Return a sentence on what `path` is instead of a file."""
    if not path.exists():
        return f"There is no file {path}."
    return f"{path} is a folder, not a file." if path.is_dir() else f"{path} is not a file."


def text_lines(text: str) -> list[str]:
    """Split text into lines at newlines only, also removing a carriage return before each."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_document(path: Path, what: str, allow_empty: bool = False) -> Any:
    """Read a YAML file (JSON if its name ends in .json) of mappings, lists and text.

    All scalars in YAML are text, including `yes`, `1990` and `80s`. `what` is what errors call the file. With
    `allow_empty`, empty values are "".

    Raises:
        UserError: if the file cannot be read, is too large, invalid or nested too deeply, or has duplicate keys, empty
            values or tags.
    """
    text = read_text(path, LARGEST_DOCUMENT)
    if path.suffix.lower() == ".json":
        return parse_json(text, what)
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        if node is None:
            raise UserError(f"{what} is empty.")
        return _Reading(what, allow_empty).value(node, 0)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{what} is not valid YAML{line}: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{what} is not valid YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply.") from error


def parse_json(text: str, what: str) -> Any:
    """Parse JSON strictly.

    Raises:
        UserError: for invalid JSON, duplicate keys, NaN, infinity and deep nesting.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{what} has the key '{twice}' twice. Remove or rename one of them.")
        return value

    def no_number(name: str) -> NoReturn:
        raise UserError(f"{what} has the value {name}, which is not valid JSON.")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_number)
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply.") from error


class _Reading:
    """Converts YAML nodes to plain values."""

    def __init__(self, what: str, allow_empty: bool) -> None:
        self.what = what
        self.allow_empty = allow_empty
        self.nodes = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.nodes += 1
        if depth > _DEEPEST:
            raise UserError(f"{self.what} is nested too deeply.")
        if self.nodes > _MOST_NODES:
            raise UserError(f"{self.what} has more than {_MOST_NODES:,} values, including aliases.")
        if node.tag not in _PLAIN_TAGS:
            raise self.refusal(node, f"has the tag {node.tag}, but tags are not supported")
        if isinstance(node, yaml.ScalarNode):
            return self.text(node)
        if isinstance(node, yaml.MappingNode):
            return dict(self.entries(node, depth))
        return [self.value(item, depth + 1) for item in node.value]

    def entries(self, node: yaml.MappingNode, depth: int) -> Iterator[tuple[str, Any]]:
        seen = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.refusal(key_node, "has a key that is not text")
            key = self.text(key_node)
            if key == "<<" and key_node.style is None:
                raise self.refusal(
                    key_node, "has a merge key (<<), which is not supported: write the entries out"
                )
            if key in seen:
                raise self.refusal(key_node, f"has the key '{key}' twice: remove or rename one of them")
            seen.add(key)
            yield key, self.value(value_node, depth + 1)

    def text(self, node: yaml.ScalarNode) -> str:
        if node.style is None and node.value in _NULLS:
            if self.allow_empty:
                return ""
            raise self.refusal(node, 'has an empty value: write "" for empty text')
        return str(node.value)

    def refusal(self, node: yaml.Node, problem: str) -> UserError:
        return UserError(f"{self.what}, line {node.start_mark.line + 1}, {problem}.")
