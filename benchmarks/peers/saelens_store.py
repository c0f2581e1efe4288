"""Time SAELens' cached activations on given rows: seconds to write and to read them as mixed batches, as JSON.

Run by `benchmarks.saelens_peer` with the interpreter of an environment that has sae-lens; imports nothing from this
project. It writes with the runner's own `_create_shard` and `_consolidate_shards` and reads with `ActivationsStore`.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from datasets import Array2D, Features, disable_progress_bars
from sae_lens.cache_activations_runner import CacheActivationsRunner
from sae_lens.training.activations_store import ActivationsStore
from transformer_lens.hook_points import HookedRootModule

HOOK = "hook"


def write(folder: Path, rows: torch.Tensor, shards: int, context: int, dtype: str) -> None:
    """Write rows (row, channel) in shards, as the runner does."""
    channels = rows.shape[1]
    runner = object.__new__(CacheActivationsRunner)
    runner.context_size = context
    runner.features = Features({HOOK: Array2D(shape=(context, channels), dtype=dtype)})
    sequences = len(rows) // shards // context
    runner.cfg = SimpleNamespace(hook_name=HOOK, d_in=channels, n_seq_in_buffer=sequences)
    temporary = folder / ".tmp_shards"
    temporary.mkdir(parents=True)
    for number, part in enumerate(rows.split(sequences * context)):
        runner._create_shard((part, None)).save_to_disk(f"{temporary}/shard_{number:05d}", num_shards=1)
    CacheActivationsRunner._consolidate_shards(temporary, folder, copy_files=False)


def read(folder: Path, n_rows: int, channels: int, context: int, batch_size: int, dtype: torch.dtype) -> int:
    """Read one epoch of mixed batches, as training does; returns the number of rows."""
    store = ActivationsStore(
        model=HookedRootModule(),
        dataset=None,
        streaming=False,
        hook_name=HOOK,
        hook_head_index=None,
        context_size=context,
        d_in=channels,
        n_batches_in_buffer=32,
        total_training_tokens=n_rows,
        store_batch_size_prompts=16,
        train_batch_size_tokens=batch_size,
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype=dtype,
        cached_activations_path=str(folder),
    )
    rows = 0
    while rows + batch_size <= n_rows:
        rows += len(store.next_batch())
    return rows


def forget(folder: Path) -> None:
    """Ask the kernel to drop a folder's files from its page cache."""
    for path in folder.rglob("*.arrow"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the kernel keeps unwritten data
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Measure on `sys.argv[1]` (npy of rows), in the folder `sys.argv[2]`, and print the seconds."""
    disable_progress_bars()
    values = np.load(sys.argv[1])
    folder, shards, context, batch_size = Path(sys.argv[2]), *map(int, sys.argv[3:6])
    rows = torch.from_numpy(values)
    dtype = str(values.dtype)
    started = time.perf_counter()
    write(folder, rows, shards, context, dtype)
    written = time.perf_counter()
    forget(folder)
    reading = time.perf_counter()
    n_read = read(folder, *values.shape, context, batch_size, rows.dtype)
    print(
        json.dumps(
            {"write_s": written - started, "read_s": time.perf_counter() - reading, "rows_read": n_read}
        )
    )


if __name__ == "__main__":
    main()
