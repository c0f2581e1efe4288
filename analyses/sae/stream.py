"""Training batches of one site and pass: read in passes without end, scaled, the same for every SAE trained on them."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.sae.distributed import ALONE, Ranks
from analyses.sae.generated import GeneratedRows
from analyses.sae.scaling import Scale, measure
from analyses.sae.spec import InputScale
from cache.errors import UserError

Rows = Iterable[Float[Tensor, "_row channel"]]
"""Batches of rows, iterated over once per pass; they may differ in length."""
Labelled = Generator[tuple[Tensor, Tensor], None, None]


@runtime_checkable
class ResumableRows(Protocol):
    """Rows that know their steps and can continue anywhere, as `cache.shuffle.ShuffledRows`."""

    batch_size: int
    n_rows: int
    channels: int
    dtype: torch.dtype

    def __iter__(self) -> Iterator[Tensor]:
        """Yield batches to the end of the pass."""
        ...

    def with_steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches with the positions of their rows' steps."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the rows as plain JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        ...


class Scaled(NamedTuple):
    """A training batch, scaled; the target is the input itself, but for a transcoder."""

    x: Float[Tensor, "row channel"]
    target: Float[Tensor, "row channel_out"]


class Stream:
    """Scaled training batches without end.

    Batches shorter than the longest so far are skipped: a step on the last few rows of a pass is mostly noise.

    Args:
        rows: the input.
        kind: what is scaled alike.
        steps: the steps that the rows' positions refer to.
        target: for a transcoder the rows of the other site, in the same order.
        device: device of the batches.
        ranks: this process and the others that share each batch.

    Raises:
        UserError: if rows are not finite, or all equal; if a target's rows cannot be in the same order.
    """

    def __init__(
        self,
        rows: Rows | ResumableRows,
        kind: InputScale = "global",
        steps: tuple[int, ...] = (),
        target: Rows | ResumableRows | None = None,
        device: str = "cpu",
        ranks: Ranks = ALONE,
        scales: list[Scale] | None = None,
    ) -> None:
        self._sources = [rows] if target is None else [rows, target]
        self._kind = kind
        self._ranks = ranks
        self._longest = 0
        _check_alike(self._sources)
        measured = scales or [self._measured(source, steps) for source in self._sources]
        self.scales = [scale.to(device) for scale in measured]
        self._device = device
        self._batches = self._full_batches()

    def next(self) -> Scaled:
        """Return the next batch, or of several processes this one's share of it.

        All shares have the same number of rows; up to one row less than there are processes is left out.
        """
        rank, size = self._ranks
        parts = [
            scale.apply(*(part[: len(part) // size * size][rank::size].to(self._device) for part in batch))
            for scale, batch in zip(self.scales, next(self._batches), strict=True)
        ]
        return Scaled(parts[0], parts[-1])

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the rows as plain JSON; only of rows that have one."""
        return {
            "longest": self._longest,
            "rows": [cast(ResumableRows, source).state_dict() for source in self._sources],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; raise UserError if it is of rows in another order."""
        for source, of_source in zip(self._sources, state["rows"], strict=True):
            cast(ResumableRows, source).load_state_dict(of_source)
        self._longest = int(state["longest"])
        self._batches = self._full_batches()

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    def _measured(self, source: Rows | ResumableRows, steps: tuple[int, ...]) -> Scale:
        begin = source.state_dict() if isinstance(source, GeneratedRows) else None
        with closing(self._labelled(source)) as rows:
            scale = measure(rows, self._kind, steps)
        if begin and isinstance(source, GeneratedRows):
            source.load_state_dict(begin)  # they cost too much to be measured only
        return scale

    def _labelled(self, source: Rows | ResumableRows) -> Labelled:
        """Yield one pass; without the steps of the rows where they do not matter."""
        if self._kind == "step":
            yield from cast(ResumableRows, source).with_steps()
            return
        none = torch.zeros(0, dtype=torch.int64)
        batches = iter(source)
        try:
            for batch in batches:
                yield batch, none
        finally:
            if isinstance(batches, Generator):
                batches.close()

    def _full_batches(self) -> Generator[list[tuple[Tensor, Tensor]], None, None]:
        while True:
            with ExitStack() as stack:
                passes = [stack.enter_context(closing(self._labelled(source))) for source in self._sources]
                for batch in zip(*passes, strict=True):
                    if len(batch[0][0]) >= self._longest:
                        self._longest = len(batch[0][0])
                        yield list(batch)


def _check_alike(sources: list[Rows | ResumableRows]) -> None:
    """Raise UserError for two sources whose random orders would differ: rows of another size are read otherwise."""
    sizes = {(source.channels, source.dtype) for source in sources if isinstance(source, ResumableRows)}
    if len(sizes) > 1:
        raise UserError(
            "A transcoder needs two sites with the same number of channels and the same storage dtype; these have "
            + " and ".join(
                f"{channels} channels of {str(dtype).removeprefix('torch.')}" for channels, dtype in sizes
            )
            + "."
        )
