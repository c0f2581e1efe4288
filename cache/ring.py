"""Shuffled rows of a cache in device memory, for training on random batches."""

from collections.abc import Generator
from types import TracebackType

import torch
from jaxtyping import Shaped

from cache.errors import UserError
from cache.shuffle import ShuffledRows


class DeviceRing:
    """As many shuffled rows as a memory budget allows, on one device; new rows replace the oldest.

        with DeviceRing(cache.shuffled_rows("tf6.cross_attn", 4096, seed=0), 8 * 2**30, "cuda") as ring:
            for _ in range(steps):
                x = ring.sample(4096)
                ring.refresh(1024)

    The ring is filled on construction. Between refreshes the next rows are read in the background until the ring is
    closed; a ring with every row of an epoch closes itself.

    Args:
        rows: source of rows; nothing else may iterate over it.
        budget_bytes: device memory for the rows. (The buffer of `rows` is in host memory.)
        device: device of the ring.

    Attributes:
        capacity: rows that fit the budget, at most those of an epoch.
        filled: rows in the ring, which is the capacity after construction.

    Raises:
        UserError: if the budget is smaller than one row.
        CacheError: if a shard is missing or damaged.
    """

    def __init__(self, rows: ShuffledRows, budget_bytes: int, device: str | torch.device = "cpu") -> None:
        row_bytes = rows.channels * rows.dtype.itemsize
        if budget_bytes < row_bytes:
            raise UserError(
                f"The ring's budget must be at least one row of {row_bytes} bytes; got {budget_bytes}."
            )
        self.capacity = min(budget_bytes // row_bytes, rows.n_rows)
        self.filled = 0
        self._holds_all = self.capacity == rows.n_rows
        self._data = torch.empty((self.capacity, rows.channels), dtype=rows.dtype, device=device)
        self._oldest = 0
        self._stream = _endless(rows)
        self._next = self._data[:0]
        self._put(self.capacity)
        if self._holds_all:
            self.close()

    def __enter__(self) -> "DeviceRing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; the rows in the ring can still be sampled."""
        self._stream.close()

    def sample(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        out: Shaped[torch.Tensor, "row channel"] | None = None,
    ) -> Shaped[torch.Tensor, "row channel"]:
        """Draw rows (row, channel) uniformly with replacement from the ring, in the stored dtype.

        Args:
            batch_size: number of rows.
            generator: random generator on the ring's device.
            out: tensor to write to, (batch_size, channel).
        """
        index = torch.randint(self.filled, (batch_size,), generator=generator, device=self._data.device)
        return torch.index_select(self._data, 0, index, out=out)

    def refresh(self, n_rows: int) -> None:
        """Replace the oldest rows by the next ones of the stream, across epochs.

        A ring with every row of an epoch is not changed.

        Raises:
            CacheError: if a shard is missing or damaged.
            UserError: if the ring is closed.
        """
        if not self._holds_all:
            self._put(n_rows)

    def _put(self, n_rows: int) -> None:
        """Overwrite the oldest rows with the next ones of the stream."""
        while n_rows > 0:
            if len(self._next) == 0:
                self._next = self._read()
            count = min(n_rows, len(self._next), self.capacity - self._oldest)
            target = self._data[self._oldest : self._oldest + count]
            target.copy_(self._next[:count], non_blocking=True)
            self._next = self._next[count:]
            self._oldest = (self._oldest + count) % self.capacity
            self.filled = min(self.filled + count, self.capacity)
            n_rows -= count

    def _read(self) -> Shaped[torch.Tensor, "row channel"]:
        try:
            return next(self._stream)
        except StopIteration:
            raise UserError("The ring was closed, or reading failed. Make a new one.") from None


def _endless(rows: ShuffledRows) -> Generator[Shaped[torch.Tensor, "row channel"], None, None]:
    while True:
        yield from rows
