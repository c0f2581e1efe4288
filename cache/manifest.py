"""The manifest: one checksummed JSON line for each committed shard; a shard without a line is not there."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache import checksum
from cache.errors import CacheError
from cache.files import replace_file, temporary_folder
from cache.protocol import MANIFEST, STAGING, canonical_json


@dataclass(frozen=True)
class ShardFile:
    """One site's file of a shard: its path inside the cache, size in bytes and CRC-32C (8 hex digits)."""

    name: str
    bytes: int
    crc32c: str

    def has_right_size(self, folder: Path) -> bool:
        """Whether the file is there and has its size (its content is not read)."""
        path = folder / self.name
        return path.is_file() and path.stat().st_size == self.bytes


@dataclass(frozen=True)
class Entry:
    """One committed shard: its number, first and last clip (both included), and its file for each site."""

    shard: int
    clips: tuple[int, int]
    files: dict[str, ShardFile]

    def is_intact(self, folder: Path) -> bool:
        """Whether all its files are there and have their sizes."""
        return all(file.has_right_size(folder) for file in self.files.values())

    def to_line(self) -> bytes:
        """The manifest line, newline included."""
        fields = asdict(self)
        return canonical_json({**fields, "crc32c": _checksum(fields)}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Entry":
        """Read a line without its newline.

        Raises:
            ValueError: if the line is damaged.
        """
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        if fields.pop("crc32c", None) != _checksum(fields):
            raise ValueError("checksum mismatch")
        first, last = fields["clips"]
        files = {site: ShardFile(**file) for site, file in fields["files"].items()}
        return cls(shard=fields["shard"], clips=(first, last), files=files)


class Manifest:
    """The committed shards of a cache folder, by number.

    Attributes:
        entries: shard number -> entry, in the order of the file.

    Raises:
        CacheError: if the file is missing, or damaged anywhere but in its last line. A damaged last line is
            what a crash while appending leaves behind; it is ignored here and gone after the next write.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST
        try:
            content = self.path.read_bytes()
        except FileNotFoundError as error:
            raise CacheError(
                f"{self.path} is missing: restore it from a copy, or delete {folder} and capture again"
            ) from error
        self.entries: dict[int, Entry] = {}
        self._end = 0
        lines = content.split(b"\n")
        torn = lines.pop()
        for number, line in enumerate(lines, start=1):
            try:
                entry = Entry.from_line(line)
                if entry.shard in self.entries:
                    raise ValueError(f"shard {entry.shard} is there twice")
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines) and not torn:
                    break
                raise CacheError(
                    f"{self.path} is damaged in line {number} ({error}): delete that line and capture again "
                    "with the same plan, which writes only its shard"
                ) from error
            self.entries[entry.shard] = entry
            self._end += len(line) + 1

    def append(self, entry: Entry) -> None:
        """Commit a shard: append its line and wait until it is on the disk."""
        line = entry.to_line()
        with self.path.open("r+b") as file:
            # Not simply at the end: an append that failed half-way (a full disk) leaves part of a line there.
            file.truncate(self._end)
            file.seek(self._end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(line)
        self.entries[entry.shard] = entry

    def settle(self, shards: Iterable[int]) -> None:
        """Bring the file to its settled form: whole lines, of these shards only, in ascending order."""
        self.entries = {shard: self.entries[shard] for shard in sorted(shards)}
        content = b"".join(entry.to_line() for entry in self.entries.values())
        if content != self.path.read_bytes():
            with temporary_folder(self.path.with_name(STAGING)) as staging:
                replace_file(self.path, content, staging / MANIFEST)
        self._end = len(content)


def _checksum(fields: dict[str, Any]) -> str:
    return checksum.to_hex(checksum.of_bytes(canonical_json(fields).encode()))
