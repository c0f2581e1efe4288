"""Read any positions of a site from its shard files: whole chunks, verified, in parallel."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from cache import checksum
from cache.encoding import STORED
from cache.errors import CacheError, UserError
from cache.manifest import Manifest
from cache.plan import CachePlan
from cache.protocol import CHECKSUM_BYTES, NO_CHUNK, shard_file_name
from cache.shardfile import Index, check_chunk, decompress, read_index
from cache.storage import Storage
from cache.wording import CAPTURE_AGAIN

Positions = Sequence[int] | Int[np.ndarray, " _"]
Stored = Shaped[np.ndarray, "clip step pass token channel"]

# Enough to hide the latency of an object store; two saturate a local disk.
THREADS = 8
_INDICES_KEPT = 1024


@dataclass(frozen=True)
class Chunk:
    """An inner chunk: its shard, its place (clip, step, pass) in the shard's grid, and its first clip, step, pass."""

    shard: int
    place: tuple[int, int, int]
    corner: tuple[int, int, int]


class ChunkReader:
    """Reader of one site by whole inner chunks, each of which is verified.

    Args:
        storage: storage of the cache.
        plan: plan of the cache.
        manifest: manifest of the cache.
        site: name of the site.
    """

    def __init__(self, storage: Storage, plan: CachePlan, manifest: Manifest, site: str) -> None:
        self._storage = storage
        self._plan = plan
        self._manifest = manifest
        self._site = site
        self.dtype = STORED[plan.dtypes[site]]
        self.chunk_shape = plan.chunk_shape(site)
        self._index = lru_cache(_INDICES_KEPT)(self._read_index)
        self._compared: set[int] = set()

    def read(self, positions: Sequence[Positions]) -> Stored:
        """Read the stored values at some positions of each of the five dimensions, in the given order.

        Raises:
            CacheError: for a shard that is not written, missing or damaged.
        """
        lists = [_as_array(given) for given in positions]
        self._refuse_too_much(lists)
        values = np.empty(tuple(len(given) for given in lists), self.dtype)
        if values.size == 0:
            return values
        chunks = self.chunks(*lists[:3])
        if len(chunks) == 1:
            self._compare(chunks[0].shard)
            self._copy(chunks[0], lists, values)
            return values
        with ThreadPoolExecutor(min(THREADS, len(chunks)), "cache-reader") as pool:
            self.read_in(pool, [(chunk, partial(self._copy, chunk, lists, values)) for chunk in chunks])
        return values

    def read_in(self, pool: Executor, reads: Sequence[tuple[Chunk, Callable[[], object]]]) -> None:
        """Read chunks in threads while comparing their shards with the manifest.

        Args:
            pool: executor for the reads.
            reads: each chunk with a function that reads it, in the order of the files.

        Raises:
            CacheError: if a shard is not written, missing or damaged. Discard what was read until then.
        """
        compared: dict[int, Future[None]] = {}
        done: list[Future[object]] = []
        for chunk, read in reads:
            if chunk.shard not in compared:
                compared[chunk.shard] = pool.submit(self._compare, chunk.shard)
            done.append(pool.submit(read))
        for comparison in compared.values():
            comparison.result()
        for task in done:
            task.result()

    def _refuse_too_much(self, lists: list[Int[np.ndarray, " _"]]) -> None:
        """Raise if a shard is not written or the result exceeds the machine's memory, before memory is allocated."""
        for shard in np.unique(lists[0] // self._plan.clips_per_shard).tolist():
            self._refuse_unwritten(shard)
        size = prod(map(len, lists)) * self.dtype.itemsize
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > memory:
            raise UserError(
                f"Cannot read {size} bytes of {self._site} in {self._storage.location}: this machine has {memory} "
                "bytes of memory. Read fewer clips, steps or tokens at once."
            )

    def chunks(self, clips: Positions, steps: Positions, passes: Positions) -> list[Chunk]:
        """Return the chunks that contain these clips, steps and passes, in the order of the files."""
        per_shard = self._plan.clips_per_shard
        shards, local = np.divmod(np.unique(clips), per_shard)
        inner = [
            np.unique(np.asarray(given) // n)
            for given, n in zip((steps, passes), self.chunk_shape[1:3], strict=True)
        ]
        found = []
        for shard in np.unique(shards).tolist():
            outer = np.unique(local[shards == shard] // self.chunk_shape[0])
            for place in product(outer.tolist(), inner[0].tolist(), inner[1].tolist()):
                clip, step, pass_number = (i * n for i, n in zip(place, self.chunk_shape[:3], strict=True))
                found.append(Chunk(shard, place, (shard * per_shard + clip, step, pass_number)))
        return found

    def read_chunk(self, chunk: Chunk, out: Stored | None = None) -> Stored:
        """Read the stored values of a chunk; beyond the last clip they are the fill value.

        Its shard must be verified before the values are used (see `read_in`).

        Args:
            chunk: one of `chunks()`.
            out: C-contiguous array of `chunk_shape` and `dtype` to read into; a new one by default.

        Raises:
            CacheError: if a shard is not written, missing or damaged.
        """
        offset, length = map(int, self._index(chunk.shard)[chunk.place])
        if offset == NO_CHUNK:
            raise self._malformed(chunk.shard, "its index lacks a chunk")
        values = np.empty(self.chunk_shape, self.dtype) if out is None else out
        is_packed = self._plan.zstd_level > 0
        content = np.empty(length - CHECKSUM_BYTES, np.uint8).data if is_packed else values.data.cast("B")
        crc = bytearray(CHECKSUM_BYTES)
        try:
            if len(content) + CHECKSUM_BYTES != length:
                raise ValueError(f"a chunk has {length} bytes, not {len(content) + CHECKSUM_BYTES}")
            self._storage.read_into(
                shard_file_name(self._site, chunk.shard), offset, content, memoryview(crc)
            )
            check_chunk(content, crc)
            if is_packed:
                decompress(content, values)
        except (OSError, EOFError, ValueError) as error:
            raise self._malformed(chunk.shard, error) from error
        return values

    def _copy(self, chunk: Chunk, lists: list[Int[np.ndarray, " _"]], values: Stored) -> None:
        """Read a chunk and copy its selected values to their place in `values`."""
        targets, sources = [], []
        for given, start, length in zip(lists[:3], chunk.corner, self.chunk_shape[:3], strict=True):
            target = np.flatnonzero((given >= start) & (given < start + length))
            targets.append(target)
            sources.append(given[target] - start)
        targets += [np.arange(len(given)) for given in lists[3:]]
        sources += lists[3:]
        into, out_of = _selection(targets), _selection(sources)
        if self._is_whole_chunk(out_of) and _is_sliced(into) and values[into].flags.c_contiguous:
            self.read_chunk(chunk, values[into])
        else:
            values[into] = self.read_chunk(chunk)[out_of]

    def _is_whole_chunk(self, selection: tuple[Any, ...]) -> bool:
        return _is_sliced(selection) and selection == tuple(slice(0, n) for n in self.chunk_shape)

    def _read_index(self, shard: int) -> Index:
        """Read the index of a shard file, after checking that the file exists with its size."""
        try:
            size = self._size(shard)
            return read_index(self._storage, self._plan, self._site, shard, size)
        except (OSError, EOFError, ValueError) as error:
            raise self._malformed(shard, error) from error

    def _compare(self, shard: int) -> None:
        """Raise CacheError unless a shard file matches the manifest."""
        if shard in self._compared:
            return
        size = self._size(shard)
        name, expected = (
            shard_file_name(self._site, shard),
            self._manifest.entries[shard].files[self._site].xxh3,
        )
        try:
            is_intact = checksum.is_intact(self._storage, name, size, expected)
        except (OSError, EOFError) as error:
            raise self._malformed(shard, error) from error
        if not is_intact:
            raise CacheError(
                f"{self._describe(shard)} is damaged (its checksum is not the one in the manifest). Run "
                f"`workbench cache verify --repair` on the cache, then {CAPTURE_AGAIN}."
            )
        self._compared.add(shard)

    def _size(self, shard: int) -> int:
        """Return the size of a shard file in bytes, after checking that the file has this size."""
        self._refuse_unwritten(shard)
        size = self._manifest.entries[shard].files[self._site].bytes
        if self._storage.size(shard_file_name(self._site, shard)) != size:
            raise CacheError(
                f"{self._describe(shard)} is missing or does not have {size} bytes. "
                f"To rewrite it, {CAPTURE_AGAIN}."
            )
        return size

    def _refuse_unwritten(self, shard: int) -> None:
        if shard not in self._manifest.entries:
            first, last = self._plan.shard_clips(shard)
            raise CacheError(
                f"Shard {shard} of {self._storage.location} (clips {first} to {last}) is not written yet. "
                f"To write it, {CAPTURE_AGAIN}; or read other clips."
            )

    def _describe(self, shard: int) -> str:
        """Describe a shard's file and clips for messages."""
        first, last = self._plan.shard_clips(shard)
        return f"{self._storage.location}/{shard_file_name(self._site, shard)} (clips {first} to {last})"

    def _malformed(self, shard: int, problem: object) -> CacheError:
        """Make the error for a file that `verify` may accept, because it was malformed when its checksum was made."""
        return CacheError(
            f"{self._describe(shard)} is damaged ({problem}). Remove it with `workbench cache rm --shard {shard}`, "
            f"then {CAPTURE_AGAIN}; or get a new copy of the cache."
        )


def _as_array(given: Positions) -> Int[np.ndarray, " _"]:
    """Convert positions to an array; a range is converted without creating its integers as objects."""
    if isinstance(given, range):
        return np.arange(given.start, given.stop, given.step, dtype=np.int64)
    return np.asarray(given, dtype=np.int64)


def _selection(positions: list[Int[np.ndarray, " _"]]) -> tuple[Any, ...]:
    """Index the positions along each axis: by slices, which are fast, if all are consecutive."""
    if all(len(given) == 0 or np.array_equal(given, np.arange(len(given)) + given[0]) for given in positions):
        return tuple(
            slice(int(given[0]), int(given[0]) + len(given)) if len(given) else slice(0)
            for given in positions
        )
    return tuple(np.ix_(*positions))


def _is_sliced(selection: tuple[Any, ...]) -> bool:
    return isinstance(selection[0], slice)
