"""Measure how many rows of a denoiser call fit into memory."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel

USABLE_FRACTION = 0.5
"""Fraction of the free memory to use; the rest is for decoding, scoring and other users of the machine."""
FEW, MANY = 1, 3


def clips_that_fit(
    model: AudioDiffusionModel, settings: GenerationSettings, budget: int | None = None
) -> int:
    """Return how many clips a batch may have so that the denoiser stays within `budget` bytes (default: half the free).

    The peaks of two short generations of different size give the cost of a clip; the result is at least 1.
    """
    one_step = model.guided_throughout(settings).model_copy(update={"num_steps": 1})
    peaks = [_peak_bytes(model, n, one_step) for n in (FEW, MANY)]
    per_clip = max(1.0, (peaks[1] - peaks[0]) / (MANY - FEW))
    fixed = max(0.0, peaks[0] - FEW * per_clip)
    allowed = USABLE_FRACTION * _free_bytes(model.device) if budget is None else budget
    return max(1, int((allowed - fixed) / per_clip))


def _free_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def _peak_bytes(model: AudioDiffusionModel, n_clips: int, settings: GenerationSettings) -> int:
    """Return the peak memory of tensors in one denoiser call, beyond what was allocated before it."""
    clips = [Clip(f"trial {seed}", seed) for seed in range(n_clips)]
    if model.device.startswith("cuda"):
        return _cuda_peak(model, clips, settings)
    with _LiveBytes() as live, _around(model.denoiser, live.restart, live.stop):
        model.generate_batch(clips, settings)
    return live.peak


def _cuda_peak(model: AudioDiffusionModel, clips: list[Clip], settings: GenerationSettings) -> int:
    peaks: list[int] = []

    def restart() -> None:
        torch.cuda.reset_peak_memory_stats(model.device)
        peaks.append(-torch.cuda.memory_allocated(model.device))

    def stop() -> None:
        peaks.append(torch.cuda.max_memory_allocated(model.device))

    with _around(model.denoiser, restart, stop):
        model.generate_batch(clips, settings)
    return sum(peaks[:2])


@contextmanager
def _around(module: torch.nn.Module, before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Call `before` and `after` around every call of the module."""
    hooks = [
        module.register_forward_pre_hook(lambda *_: before()),
        module.register_forward_hook(lambda *_: after()),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _LiveBytes(TorchDispatchMode):
    """Count the bytes of live tensors created inside, and their peak, which the CPU allocator does not report."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._counting = False
        self._known: set[int] = set()

    def restart(self) -> None:
        """Start counting."""
        self.held = self.peak = 0
        self._known.clear()
        self._counting = True

    def stop(self) -> None:
        """Stop counting."""
        self._counting = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output) if self._counting else ():
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._known:
            return
        self._known.add(address)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        if address in self._known:
            self._known.discard(address)
            self.held -= size
