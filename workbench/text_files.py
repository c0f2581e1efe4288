"""Files that people wrote: text, YAML and JSON, read strictly and in bounded time; each mistake gets one sentence."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cache.errors import UserError

LARGEST_DOCUMENT = 2**22
"""Bytes of a YAML or JSON file."""
LARGEST_TABLE = 2**28
"""Bytes of a table, or of a text file that is one."""

_DEEPEST = 50
_MOST_NODES = 200_000  # a few aliases of aliases would name billions
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16 and UTF-32
_NULLS = ("", "~", "null", "Null", "NULL")
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


def read_text(path: Path, largest: int) -> str:
    """The text of a file in UTF-8, line endings as they are, without a byte order mark.

    Raises:
        UserError: for what is missing, is no file, cannot be read, is in another encoding, or has more bytes than
            `largest`.
    """
    try:
        if not path.is_file():
            raise UserError(f"{no_file(path)} Give the path of a text file.")
        if path.stat().st_size > largest:
            raise UserError(f"{path} is larger than {largest:,} bytes, the most that is read of such a file.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a null character in a path
        raise UserError(f"{str(path)!r} is not a path.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: save it as such.") from error
    if content.startswith(_WIDE_MARKS) or "\x00" in text:
        raise UserError(f"{path} is not text in UTF-8: save it as such.")
    return text


def no_file(path: Path) -> str:
    """What is there instead of a file, in a sentence."""
    if not path.exists():
        return f"There is no file {path}."
    return f"{path} is a folder, not a file." if path.is_dir() else f"{path} is not a file."


def text_lines(text: str) -> list[str]:
    """The lines of a text, split at newlines only (a carriage return before one belongs to it)."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_document(path: Path, what: str) -> Any:
    """What a YAML file (or JSON, where its name ends so) holds: mappings, lists and text.

    All that is written in YAML is text: `yes`, `1990` and `80s` are names like any other. `what` is what errors
    call the file.

    Raises:
        UserError: for a file that cannot be read or is too large, is not valid, has a key twice in a mapping, is
            nested too deeply, or has empty values or tags.
    """
    text = read_text(path, LARGEST_DOCUMENT)
    if path.suffix.lower() == ".json":
        return parse_json(text, what)
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        if node is None:
            raise UserError(f"{what} is empty.")
        return _Reading(what).value(node, 0)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{what} is not valid YAML{line}: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{what} is not valid YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply.") from error


def parse_json(text: str, what: str) -> Any:
    """What a JSON text says.

    Raises:
        UserError: for what is not valid JSON, a key that is there twice in an object, NaN and infinity, and deep
            nesting.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{what} has the key '{twice}' twice: only one of them can be meant.")
        return found

    def no_number(name: str) -> NoReturn:
        raise UserError(f"{what} has the value {name}, which is not a number of JSON.")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_number)
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply.") from error


class _Reading:
    """Makes plain values of YAML's nodes."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.nodes = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.nodes += 1
        if depth > _DEEPEST:
            raise UserError(f"{self.what} is nested too deeply.")
        if self.nodes > _MOST_NODES:
            raise UserError(f"{self.what} has more than {_MOST_NODES:,} values, its aliases written out.")
        if node.tag not in _PLAIN_TAGS:
            raise self.refusal(node, f"has the tag {node.tag}, and tags mean nothing here")
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
                raise self.refusal(key_node, "has a merge key (<<), which is not read: write the entries out")
            if key in seen:
                raise self.refusal(key_node, f"has the key '{key}' twice: only one of them can be meant")
            seen.add(key)
            yield key, self.value(value_node, depth + 1)

    def text(self, node: yaml.ScalarNode) -> str:
        if node.style is None and node.value in _NULLS:
            raise self.refusal(node, 'has an empty value: write text there, in quotes ("") where it is empty')
        return str(node.value)

    def refusal(self, node: yaml.Node, problem: str) -> UserError:
        return UserError(f"{self.what}, line {node.start_mark.line + 1}, {problem}.")
