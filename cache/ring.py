"""The hot part of a cache in the memory of a device, for training on random rows of it."""

from collections.abc import Generator
from types import TracebackType

import torch
from jaxtyping import Shaped

from cache.errors import UserError
from cache.shuffle import ShuffledRows


class DeviceRing:
    """As many shuffled rows as a byte budget allows, on one device; old ones are replaced by new ones.

        with DeviceRing(cache.shuffled_rows("tf6.cross_attn", 4096, seed=0), 8 * 2**30, "cuda") as ring:
            for _ in range(steps):
                x = ring.sample(4096)
                ring.refresh(1024)

    The ring is filled when it is made. Between refreshes the next rows are read in the background, until the ring is
    closed; a ring that holds every row of an epoch closes itself.

    Args:
        rows: where rows come from; nothing else may iterate it.
        budget_bytes: memory of the rows on the device. (The buffer of `rows` is in the machine's own memory.)
        device: where the ring lies.

    Attributes:
        capacity: rows that the budget holds, at most those of an epoch.
        filled: rows that are held: the capacity, once the ring is made.

    Raises:
        UserError: when the budget holds less than one row. CacheError: when a shard is missing or damaged.
    """

    def __init__(self, rows: ShuffledRows, budget_bytes: int, device: str | torch.device = "cpu") -> None:
        row_bytes = rows.channels * rows.dtype.itemsize
        if budget_bytes < row_bytes:
            raise UserError(
                f"a ring of {budget_bytes} bytes holds no row, which has {row_bytes}: give a larger budget"
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
        """Stop reading; the rows that are held can still be sampled."""
        self._stream.close()

    def sample(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        out: Shaped[torch.Tensor, "row channel"] | None = None,
    ) -> Shaped[torch.Tensor, "row channel"]:
        """Rows (row, channel) drawn uniformly and with replacement from those held, in the stored dtype.

        Args:
            batch_size: how many.
            generator: of the random numbers, on the ring's device.
            out: memory to put them into, (batch_size, channel).
        """
        index = torch.randint(self.filled, (batch_size,), generator=generator, device=self._data.device)
        return torch.index_select(self._data, 0, index, out=out)

    def refresh(self, n_rows: int) -> None:
        """Replace the oldest rows by the next ones of the stream, going on from epoch to epoch.

        A ring that holds every row of an epoch stays as it is.

        Raises:
            CacheError: when a shard is missing or damaged. UserError: when the ring is closed.
        """
        if not self._holds_all:
            self._put(n_rows)

    def _put(self, n_rows: int) -> None:
        """Write the next rows of the stream to the place of the oldest."""
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
            raise UserError(
                "the ring reads no more, because it was closed or reading failed: make a new one"
            ) from None


def _endless(rows: ShuffledRows) -> Generator[Shaped[torch.Tensor, "row channel"], None, None]:
    while True:
        yield from rows
