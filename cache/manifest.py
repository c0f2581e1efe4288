"""The manifest: one checksummed JSON line for each committed shard; a shard without a line does not exist."""

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from cache import checksum
from cache.plan import CachePlan
from cache.protocol import (
    ENTRIES,
    MANIFEST,
    canonical_json,
    entry_name,
    parse_json,
    shard_file_name,
)
from cache.storage import Storage

# Damaged lines are listed up to this number: a hostile file may have millions.
_MAX_NAMED = 1000


@dataclass(frozen=True)
class ShardFile:
    """One site's file of a shard: its size in bytes, its XXH3 (16 hex digits) and the rounding error of its values.

    `largest`, `max_error` and `rms_error` are those of `cache.rounding.Rounding.summary`.
    """

    bytes: int
    xxh3: str
    largest: float
    max_error: float
    rms_error: float


@dataclass(frozen=True)
class Entry:
    """One committed shard: its number, first and last clip (inclusive), and its file for each site."""

    shard: int
    clips: tuple[int, int]
    files: dict[str, ShardFile]

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each of its files, by name."""
        return {shard_file_name(site, self.shard): file.bytes for site, file in self.files.items()}

    def check(self) -> None:
        """Raise TypeError for fields of the wrong type."""
        numbers = [self.shard, *self.clips, *(file.bytes for file in self.files.values())]
        if not all(type(number) is int for number in numbers):
            raise TypeError("a number is not an integer")
        for file in self.files.values():
            statistics = (file.largest, file.max_error, file.rms_error)
            if not all(isinstance(value, int | float) for value in statistics):
                raise TypeError("a statistic is not a number")
            if not isinstance(file.xxh3, str):
                raise TypeError("a checksum is not text")

    def to_line(self) -> bytes:
        """Return the manifest line, including the newline."""
        fields = asdict(self)
        return canonical_json({**fields, "xxh3": _checksum(fields)}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Entry":
        """Parse a line without its newline.

        Raises:
            ValueError: if the line is damaged.
        """
        try:
            fields = parse_json(line)
            stated = fields.pop("xxh3")
            first, last = fields["clips"]
            files = {site: ShardFile(**file) for site, file in fields["files"].items()}
            entry = cls(**{**fields, "clips": (first, last), "files": files})
            entry.check()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest entry ({error})") from error
        if stated != _checksum(fields):
            raise ValueError("checksum mismatch")
        return entry


class Manifest:
    """The committed shards of a cache, by number.

    While shards are being written, each has its own entry under `manifest/`; once all are committed, the entries are
    merged into the lines of `manifest.jsonl`. Reading uses both.

    Attributes:
        entries: shard number -> entry, ascending.
        damaged: names of damaged lines and entries. Their shards count as not written.
        is_settled: whether `manifest.jsonl` has all shards.
    """

    def __init__(self, storage: Storage, plan: CachePlan) -> None:
        self._storage = storage
        self._plan = plan
        self.entries: dict[int, Entry] = {}
        self.damaged: list[str] = []
        self._possible_sizes = lru_cache(plan.possible_sizes)
        self.load()

    def load(self) -> None:
        """Reload the manifest."""
        found: dict[int, Entry] = {}
        self.damaged = []
        entry_names = self._storage.sizes(ENTRIES)
        # Entries first: settling writes the lines before it removes the entries, so none can be missed.
        for name in entry_names:
            try:
                line = self._storage.read(name, self._line_limit()).rstrip(b"\n")
            except FileNotFoundError:
                continue
            self._take(found, name, line)
        for number, line in enumerate(self._lines(), start=1):
            self._take(found, f"{MANIFEST} line {number}", line)
            if len(self.damaged) > _MAX_NAMED:
                self.damaged.append(f"{MANIFEST} (more lines are damaged)")
                break
        self.entries = dict(sorted(found.items()))
        complete = len(found) == self._plan.n_shards
        self.is_settled = complete and not entry_names and not self.damaged

    def append(self, entry: Entry) -> None:
        """Commit a shard; raise FileExistsError if another writer has committed it."""
        self._storage.put(entry_name(entry.shard), [entry.to_line()], new=True)
        self.entries[entry.shard] = entry

    def drop(self, shards: set[int]) -> None:
        """Remove shards from the manifest, so that they count as not written."""
        kept = {shard: entry for shard, entry in self.entries.items() if shard not in shards}
        if self._storage.size(MANIFEST) is not None:
            self._write_lines(kept)
        self._storage.delete([entry_name(shard) for shard in shards])
        self.entries = kept
        self.is_settled = False

    def settle(self) -> None:
        """Write all entries as the lines of one file, in ascending order."""
        self.entries = dict(sorted(self.entries.items()))
        self._write_lines(self.entries)
        self._storage.delete(list(self._storage.sizes(ENTRIES)))
        self.damaged = []
        self.is_settled = True

    def _write_lines(self, entries: dict[int, Entry]) -> None:
        self._storage.put(MANIFEST, [entry.to_line() for entry in entries.values()])

    def _lines(self) -> Iterator[bytes]:
        """Yield the complete lines, without their newline; no more than the plan allows."""
        try:
            lines = io.BytesIO(self._storage.read(MANIFEST))
        except FileNotFoundError:
            return
        for line in islice(lines, self._plan.n_shards + _MAX_NAMED):
            if line.endswith(b"\n"):
                yield line[:-1]

    def _line_limit(self) -> int:
        """Return the largest size of an entry's line in bytes."""
        return 1024 + sum(1024 + len(site) for site in self._plan.sites)

    def _is_planned(self, entry: Entry) -> bool:
        plan = self._plan
        if entry.shard not in range(plan.n_shards) or set(entry.files) != set(plan.sites):
            return False
        return entry.clips == plan.shard_clips(entry.shard) and all(
            file.bytes in self._possible_sizes(site, entry.shard == plan.n_shards - 1)
            for site, file in entry.files.items()
        )

    def _take(self, found: dict[int, Entry], name: str, line: bytes) -> None:
        try:
            if len(line) > self._line_limit():
                raise ValueError("too long for an entry")
            entry = Entry.from_line(line)
            if not self._is_planned(entry):
                raise ValueError("not of this plan")
        except ValueError as error:
            self.damaged.append(f"{name} ({error})")
            return
        found.setdefault(entry.shard, entry)


def _checksum(fields: dict[str, Any]) -> str:
    return checksum.xxh3(canonical_json(fields).encode())
