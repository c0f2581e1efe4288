"""Write shards in the background while the model runs.

There is a ring of host buffers ("slots"), each the size of one shard. Values are cast on their device and copied (on
CUDA in a side stream) into the slot being filled; a full slot is handed to a thread that writes it. When no slot is
free the model waits, so memory does not grow with the length of a run.
"""

import contextlib
import queue
import threading
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float

from cache.errors import UserError
from cache.rounding import TORCH, Rounding
from cache.tokens import reduce_tokens
from cache.writer import CacheWriter

SLOTS = 2


class ShardPipeline:
    """Takes a run's values call by call and writes them shard by shard in the background.

        with ShardPipeline(writer, "cuda") as pipeline:
            for shard in writer.missing():
                pipeline.begin(shard)
                pipeline.add("tf6.cross_attn", step=0, values)     # for each site and step, in any order
                pipeline.end()

    Leaving the `with` block waits until everything is committed.

    Args:
        writer: the cache's writer; the pipeline is the only one to use it.
        device: device of the values. On CUDA the slots are pinned.
    """

    def __init__(self, writer: CacheWriter, device: str | torch.device = "cpu") -> None:
        self._writer = writer
        self._device = torch.device(device)
        cuda = self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if cuda else None
        self._free: queue.Queue[_Slot] = queue.Queue()
        self._full: queue.Queue[_Slot | None] = queue.Queue()
        self._slots_left = SLOTS
        self._filling: _Slot | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="cache-pipeline", daemon=True)
        self._thread.start()

    def __enter__(self) -> "ShardPipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._full.put(None)
        self._thread.join()
        if error is None:
            self._raise_error()

    def begin(self, shard: int) -> None:
        """Start filling a shard; wait for a free slot, and re-raise any error from writing an earlier shard."""
        self._raise_error()
        if self._filling is not None:  # discard a shard that was not ended
            self._free.put(self._filling)
            self._filling = None
        if self._free.empty() and self._slots_left:
            self._slots_left -= 1
            slot = _Slot(self._writer, pinned=self._stream is not None)
        else:
            slot = self._free.get()
            self._raise_error()
        self._filling = slot
        slot.start(shard)

    def add(self, site: str, step: int, values: Float[torch.Tensor, "clip pass token channel"]) -> None:
        """Add the values of one site at one planned step, with all of the denoiser's tokens; `values` may be reused.

        Raises:
            UserError: if the site or step is not in the plan, or the shape is wrong.
        """
        slot, plan = self._filling, self._writer.plan
        assert slot is not None, "call begin() first"
        if not values.dtype.is_floating_point:
            raise UserError(f"{site} at step {step} must have floating-point numbers; got {values.dtype}.")
        kept = reduce_tokens(values.detach(), plan.token_reduction)
        target = slot.values(site, step)
        if kept.shape != target.shape:
            raise UserError(
                f"{site} at step {step} must have the planned shape (clip, pass, token, channel) = "
                f"{tuple(target.shape)}; got {tuple(kept.shape)}."
            )
        if self._device.type == "cpu":
            target.copy_(kept)
            slot.roundings[site].add(kept, target)
        else:
            # Copied in the model's own stream, because the model may overwrite its values once this returns.
            stored = kept.to(target.dtype, copy=True)
            slot.roundings[site].add(kept, stored)
            with self._on_side_stream(stored):
                target.copy_(stored, non_blocking=True)
        slot.added.add((site, step))

    def end(self) -> None:
        """Hand the filled shard over for writing.

        Raises:
            UserError: if a site or step is missing.
        """
        slot, plan = self._filling, self._writer.plan
        assert slot is not None, "call begin() first"
        lacking = [
            (site, step) for site in plan.sites for step in plan.steps if (site, step) not in slot.added
        ]
        self._filling = None
        if lacking:
            self._free.put(slot)
            site, step = lacking[0]
            raise UserError(f"Shard {slot.shard} lacks the values of {site} at step {step}.")
        if self._stream is not None:
            slot.copied = self._stream.record_event()
        self._full.put(slot)

    def _write(self) -> None:
        while (slot := self._full.get()) is not None:
            if self._error is None:
                try:
                    slot.write()
                except BaseException as error:  # noqa: BLE001 - raised in the caller's thread by _raise_error
                    self._error = error
            self._free.put(slot)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    @contextlib.contextmanager
    def _on_side_stream(self, values: torch.Tensor) -> Any:
        """On CUDA, run the block in a side stream that waits for the model's values; otherwise do nothing."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
        values.record_stream(self._stream)


class _Slot:
    """Host memory for one shard: for each site (step, clip, pass, token, channel), in the stored format."""

    def __init__(self, writer: CacheWriter, pinned: bool) -> None:
        self._writer = writer
        plan = writer.plan
        self._values: dict[str, torch.Tensor] = {}
        for site in plan.sites:
            clips, steps, *rest = plan.shard_shape(site)
            self._values[site] = torch.empty(
                (steps, clips, *rest), dtype=TORCH[plan.dtypes[site]], pin_memory=pinned
            )
        self.copied: torch.cuda.Event | None = None

    def start(self, shard: int) -> None:
        """Reset the slot for a shard."""
        plan = self._writer.plan
        first, last = plan.shard_clips(shard)
        self.shard = shard
        self.clips = last - first + 1
        self.roundings = {site: Rounding() for site in plan.sites}
        self.added: set[tuple[str, int]] = set()

    def values(self, site: str, step: int) -> torch.Tensor:
        """Return the memory for the values (clip, pass, token, channel) of a site at a step."""
        plan = self._writer.plan
        if site not in self._values or step not in plan.steps:
            raise UserError(f"{site} at step {step} is not in the cache's plan.")
        return self._values[site][plan.steps.index(step), : self.clips]

    def write(self) -> None:
        """Wait for the copies, then write and commit the shard."""
        if self.copied is not None:
            self.copied.synchronize()
        arrays = {site: values[:, : self.clips].transpose(0, 1) for site, values in self._values.items()}
        self._writer.write_shard(self.shard, arrays, self.roundings)
