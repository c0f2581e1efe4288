"""Read activation vectors in random order at the speed of sequential reading, resumable at any row."""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int16, Int64, Shaped

from cache.errors import UserError
from cache.protocol import canonical_json
from cache.rounding import TORCH

if TYPE_CHECKING:
    from cache.reader import ActivationCache

BUFFER_BYTES = 256 * 2**20
# Memory of a row in the buffer besides its values: its index in the random order.
_INDEX_BYTES = 8
_BITS = {2: torch.int16, 4: torch.int32}


class ShuffledRows:
    """Every vector (clip, step, pass, token) of a site exactly once per epoch, in random order.

    The chunks of the store are shuffled and split into groups that fit half the buffer; the rows of each group are
    shuffled; an epoch consists of the groups in sequence. While the rows of one group are returned, the next group is
    read. Each chunk is read and verified once per epoch; a selection that fits one group is read only once.

    The order depends only on the seed, the epoch, the selection and `buffer_bytes`. Batches are consecutive pieces of
    it, and only the last one of an epoch may be smaller. Iteration continues to the end of the current epoch; iterating
    again runs the next epoch. Only one iteration may run at a time.

    In a partial cache, only the rows of committed shards are used, unless clips are given.

    Args:
        cache: the cache to read.
        site: name of the site.
        batch_size: rows per batch.
        seed: seed of the order; not negative.
        clips, steps, passes: labels to select; None means all.
        device: device of the batches. Those for CUDA are gathered in pinned memory and copied asynchronously.
        workers: threads that read and verify chunks.
        buffer_bytes: memory for rows and their order. At least one chunk is always in memory, and a second one while it
            is being read.

    Attributes:
        batch_size: rows per batch.
        n_rows: rows per epoch.
        channels: length of a row.
        dtype: number format of the batches, which is the stored one.

    Raises:
        UserError: for a batch size below 1, a negative seed, an unknown site or label, or an empty selection.
    """

    def __init__(
        self,
        cache: "ActivationCache",
        site: str,
        batch_size: int,
        seed: int,
        clips: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
        passes: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        workers: int = 4,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1; got {batch_size}.")
        if seed < 0:
            raise UserError(f"The seed must not be negative; got {seed}.")
        self._source = _Source(cache, site, clips, steps, passes)
        self.batch_size = batch_size
        self.n_rows = int(self._source.sizes.sum())
        self.channels = cache.channels(site)
        self.dtype = TORCH[cache.plan.dtypes[site]]
        self._seed = seed
        self._device = torch.device(device)
        self._workers = workers
        self._buffer_bytes = buffer_bytes
        self._group_rows = buffer_bytes // 2 // (self.channels * self.dtype.itemsize + _INDEX_BYTES)
        self._kept: torch.Tensor | None = None
        self._epoch = 0
        self._row = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-self.n_rows // self.batch_size)

    def __iter__(self) -> Iterator[Shaped[torch.Tensor, "row channel"]]:
        """Yield batches (row, channel) from the current row to the end of the epoch.

        Raises:
            CacheError: if a shard is missing or damaged.
        """
        with closing(self._batches()) as batches:
            for batch, _ in batches:
                yield batch

    def with_steps(
        self,
    ) -> Iterator[tuple[Shaped[torch.Tensor, "row channel"], Int64[torch.Tensor, " row"]]]:
        """Yield batches as iteration does, with the position of each row's step among the cache's steps."""
        yield from self._batches(with_steps=True)

    def _batches(
        self, with_steps: bool = False
    ) -> Generator[tuple[Shaped[torch.Tensor, "row channel"], Int64[torch.Tensor, " _row"]], None, None]:
        """Yield batches with the steps of their rows, or with no steps at all."""
        with closing(self._groups(with_steps)) as groups:
            gather = _Gather(groups)
            for first in range(self._row, self.n_rows, self.batch_size):
                size = min(self.batch_size, self.n_rows - first)
                # A new one for each batch: torch reuses pinned memory only when the copy out of it is done.
                if self._device.type == "cuda":
                    batch = torch.empty((size, self.channels), dtype=self.dtype, pin_memory=True)
                else:
                    batch = _host_memory(size, self.channels, self.dtype)
                steps = torch.empty(size if with_steps else 0, dtype=torch.int64)
                gather.fill(batch, steps)
                self._row = first + size
                if self._row == self.n_rows:
                    self._epoch, self._row = self._epoch + 1, 0
                yield batch.to(self._device, non_blocking=True), steps.to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON: the epoch, the next row in it, and what determines the order."""
        return {"epoch": self._epoch, "row": self._row, **self._order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration continue from a `state_dict`.

        Raises:
            UserError: if the state belongs to another order.
        """
        for name, value in self._order().items():
            if state.get(name) != value:
                raise UserError(
                    f"The state belongs to rows in another order: its {name} is {state.get(name)}, not {value}. "
                    "Give the same cache, site, labels, seed and buffer_bytes."
                )
        self._epoch, self._row = state["epoch"], state["row"]

    def _order(self) -> dict[str, Any]:
        """Return everything that determines the order."""
        return {
            "seed": self._seed,
            "buffer_bytes": self._buffer_bytes,
            "selection": self._source.selection,
        }

    def _groups(self, with_steps: bool) -> Generator["_Group", None, None]:
        """Yield the remaining groups of the current epoch, the first one from the current row on."""
        epoch, sizes = self._epoch, self._source.sizes
        groups = _cut(self._rng(epoch, 0).permutation(len(sizes)), sizes, self._group_rows)
        rows = np.array([sizes[chunks].sum() for chunks in groups])
        firsts = np.cumsum(rows) - rows
        start = int(np.searchsorted(firsts, self._row, side="right")) - 1
        skipped = self._row - int(firsts[start])
        # Used alternately; they take no memory until they are written to.
        buffers = [_host_memory(int(rows.max()), self.channels, self.dtype) for _ in range(2)]
        with _threads(1) as ahead, _threads(self._workers) as readers:

            def load(number: int) -> "Future[_Group]":
                buffer = buffers[number % 2][: rows[number]]
                return ahead.submit(self._load, readers, groups[number], self._rng(epoch, 1 + number), buffer)

            loading = load(start)
            for number in range(start, len(groups)):
                group = loading.result()
                if number + 1 < len(groups):
                    loading = load(number + 1)
                steps = self._source.steps(groups[number].tolist()) if with_steps else group.steps
                yield _Group(group.rows, group.order[skipped:], steps)
                skipped = 0

    def _load(
        self,
        readers: ThreadPoolExecutor,
        chunks: Int64[np.ndarray, " chunk"],
        rng: np.random.Generator,
        buffer: Shaped[torch.Tensor, "row channel"],
    ) -> "_Group":
        """Read chunks into a buffer, each to a fixed place independent of the threads, and draw the rows' order."""
        if self._kept is None:
            places = buffer.split(self._source.sizes[chunks].tolist())
            self._source.read_all(readers, chunks.tolist(), places)
            if self.n_rows <= self._group_rows:
                self._kept = buffer
        rows = buffer if self._kept is None else self._kept
        return _Group(rows, torch.from_numpy(rng.permutation(len(rows))), torch.empty(0, dtype=torch.int16))

    def _rng(self, epoch: int, number: int) -> np.random.Generator:
        """Return the generator for the order of an epoch's chunks (0), or of the rows of its group `number` - 1."""
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(epoch, number)))


class _Group(NamedTuple):
    """Rows in memory, the order in which the remaining ones are returned, and the steps of all, if they are needed."""

    rows: Shaped[torch.Tensor, "row channel"]
    order: Int64[torch.Tensor, " left"]
    steps: Int16[torch.Tensor, " labelled"]


class _Source:
    """The selected rows of a site, chunk by chunk in the order of the files.

    Attributes:
        sizes: selected rows of each chunk.
        selection: SHA-256 (hex) of the selection: store, site and positions.
    """

    def __init__(
        self,
        cache: "ActivationCache",
        site: str,
        clips: Sequence[int] | None,
        steps: Sequence[int] | None,
        passes: Sequence[str] | None,
    ) -> None:
        plan = cache.plan
        self._reader = cache.chunk_reader(site)
        self._wanted = [
            np.unique(np.asarray(cache.positions(dim, labels), dtype=np.int64))
            for dim, labels in (("clip", clips), ("step", steps), ("pass", passes))
        ]
        if clips is None:
            there = np.isin(self._wanted[0] // plan.clips_per_shard, list(cache.manifest.entries))
            self._wanted[0] = self._wanted[0][there]
        if not all(map(len, self._wanted)):
            raise UserError(
                f"No rows of {site} in {cache.storage.location} are selected. "
                "Give at least one written clip, one step and one pass, or None for all."
            )
        self._chunks = self._reader.chunks(*self._wanted)
        self._shape = self._reader.chunk_shape[:3]
        corners = np.array([chunk.corner for chunk in self._chunks])
        slices = np.ones(len(self._chunks), dtype=np.int64)
        for wanted, length, corner in zip(self._wanted, self._shape, corners.T, strict=True):
            slices *= np.bincount(wanted // length)[corner // length]
        self._tokens = plan.tokens
        self.sizes: Int64[np.ndarray, " chunk"] = slices * plan.tokens
        what = [plan.hash, site, *(wanted.tolist() for wanted in self._wanted)]
        self.selection = hashlib.sha256(canonical_json(what).encode()).hexdigest()

    def read_all(
        self,
        pool: ThreadPoolExecutor,
        numbers: list[int],
        targets: Sequence[Shaped[torch.Tensor, "_ channel"]],
    ) -> None:
        """Read chunks in threads, each into its target; raise as `read` does."""
        reads = [
            (self._chunks[number], partial(self.read, number, target))
            for number, target in zip(numbers, targets, strict=True)
        ]
        self._reader.read_in(pool, reads)

    def steps(self, numbers: list[int]) -> Int16[torch.Tensor, " row"]:
        """Return the positions of the steps of the selected rows of chunks, in the order of `read_all`."""
        of_chunks = [np.meshgrid(*self._inside(number), indexing="ij")[1].ravel() for number in numbers]
        first = [self._chunks[number].corner[1] for number in numbers]
        steps = np.concatenate([inside + start for inside, start in zip(of_chunks, first, strict=True)])
        return torch.from_numpy(np.repeat(steps, self._tokens).astype(np.int16))

    def _inside(self, number: int) -> list[Int64[np.ndarray, " _"]]:
        """Return the selected positions along clip, step and pass within a chunk."""
        inside = []
        for wanted, start, length in zip(self._wanted, self._chunks[number].corner, self._shape, strict=True):
            low, high = np.searchsorted(wanted, (start, start + length))
            inside.append(wanted[low:high] - start)
        return inside

    def read(self, number: int, target: Shaped[torch.Tensor, "row channel"]) -> None:
        """Read a chunk and copy its selected rows to `target`.

        Raises:
            CacheError: if a shard is missing or damaged.
        """
        chunk = self._chunks[number]
        # Copied as integers, because numpy has no bfloat16.
        bits = target.view(_BITS[target.itemsize]).numpy()
        if len(target) == prod(self._reader.chunk_shape[:4]):
            self._reader.read_chunk(chunk, bits.reshape(self._reader.chunk_shape).view(self._reader.dtype))
            return
        content = self._reader.read_chunk(chunk)
        slices = np.ravel_multi_index(np.ix_(*self._inside(number)), self._shape).ravel()
        bits = bits.reshape(len(slices), -1)
        # "clip" lets numpy write to `out` without a copy.
        np.take(content.view(bits.dtype).reshape(-1, bits.shape[1]), slices, axis=0, out=bits, mode="clip")


class _Gather:
    """Fills batches from successive groups."""

    def __init__(self, groups: Iterator[_Group]) -> None:
        self._groups = groups
        empty = torch.empty(0, dtype=torch.int64)
        self._group = _Group(torch.empty((0, 0)), empty, empty.short())

    def fill(
        self, batch: Shaped[torch.Tensor, "row channel"], steps: Int64[torch.Tensor, " labelled"]
    ) -> None:
        """Fill a batch with the next rows, and `steps`, unless it is empty, with their steps."""
        filled = 0
        while filled < len(batch):
            if len(self._group.order) == 0:
                self._group = next(self._groups)
            rows, order, of_rows = self._group
            index, left = order[: len(batch) - filled], order[len(batch) - filled :]
            torch.index_select(rows, 0, index, out=batch[filled : filled + len(index)])
            if len(steps):
                steps[filled : filled + len(index)] = of_rows[index].long()
            filled += len(index)
            self._group = _Group(rows, left, of_rows)


def _host_memory(rows: int, channels: int, dtype: torch.dtype) -> Shaped[torch.Tensor, "row channel"]:
    """Allocate a tensor in numpy's memory, which uses huge pages: ten times faster to touch first."""
    bits = np.empty((rows, channels), dtype=f"i{dtype.itemsize}")
    return torch.from_numpy(bits).view(dtype)


def _cut(
    order: Int64[np.ndarray, " chunk"], sizes: Int64[np.ndarray, " chunk"], limit: int
) -> list[Int64[np.ndarray, " _"]]:
    """Split ordered chunks into groups of similar size, with at most `limit` rows but at least one chunk each.

    Within a group chunks are in the order of the files: this reads faster, and a group of all chunks has the same
    contents in every epoch.
    """
    total, largest = int(sizes.sum()), int(sizes.max())
    if total <= limit:
        return [np.sort(order)]
    # A group takes the chunks that begin within a range of rows; the last one may extend beyond it.
    longest = max(1, limit - largest)
    stretch = -(-total // -(-total // longest))
    begins = np.cumsum(sizes[order]) - sizes[order]
    cuts = np.flatnonzero(np.diff(begins // stretch)) + 1
    return [np.sort(group) for group in np.split(order, cuts)]


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread pool that is shut down at the end of the block, dropping pending work."""
    pool = ThreadPoolExecutor(count, "cache-rows")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
