"""Speed of writing and reading activations through the cache, compared with the same bytes in plain files.

Run as `python -m benchmarks.cache_io`. Both sides sync what they write and alternate within each round; the page cache
is dropped before each read. Ratios are speed of the cache / speed of the plain files.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks._result import write_result
from cache import ActivationCache, CachePlan, CacheWriter, checksum
from cache.maintenance import verify
from cache.ring import DeviceRing

ROUNDS = 5
BATCH_SIZE = 4096
RING_BYTES = 512 * 2**20
PLAN = CachePlan(
    sites={"tf0.cross_attn": 2048, "tf1.cross_attn": 2048},
    dtypes="float16",
    n_clips=16,
    steps=(0, 20, 40, 59),
    sigmas=(1.0, 0.7, 0.3, 0.02),
    passes=("cond", "null"),
    tokens=1024,
    token_seconds=0.04,
    clips_per_shard=2,
    identity={"benchmark": "cache_io"},
)
SITE = "tf0.cross_attn"
Arrays = dict[str, torch.Tensor]


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def forget(folder: Path) -> None:
    """Make the next read like that of a new process: from disk, of shards that have not been verified yet."""
    checksum.forget()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_plain(folder: Path, arrays: Arrays) -> None:
    """Write one synced file per site and shard, values only, one after the other."""
    folder.mkdir()
    for shard in range(PLAN.n_shards):
        for site, values in arrays.items():
            with (folder / f"{site}-{shard}").open("wb") as file:
                values.numpy().tofile(file)
                file.flush()
                os.fsync(file.fileno())


def write_cache(folder: Path, arrays: Arrays) -> None:
    """The same values through the cache."""
    with CacheWriter(folder, PLAN, pd.DataFrame({"clip": range(PLAN.n_clips)})) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, arrays)


def read_plain(folder: Path) -> None:
    """Read all stored values of one site, file by file."""
    for path in sorted(folder.glob(f"{SITE}-*")):
        np.fromfile(path, np.float16)


def read_cache(folder: Path) -> None:
    """Read the same values through the cache, shard by shard, as stored."""
    cache = ActivationCache(folder)
    for first, last in PLAN.shards:
        shape = (last - first + 1, *PLAN.shape(SITE)[1:])
        cache.read_stored(SITE, [range(first, last + 1), *map(range, shape[1:])])


def read_shuffled(folder: Path) -> None:
    """Read the same values as shuffled tensors, as training does."""
    for _ in ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, seed=0):
        pass


def read_slices(folder: Path) -> None:
    """Read every slice (clip, step, pass) of one shard separately as float32, as a browser does."""
    cache = ActivationCache(folder)
    for clip in range(PLAN.clips_per_shard):
        for step in PLAN.steps:
            for name in PLAN.passes:
                cache.read(SITE, clips=[clip], steps=[step], passes=[name])


def one_round(folder: Path, arrays: Arrays, plain_first: bool) -> Iterator[tuple[str, float]]:
    """Name and seconds of each action; the sides take turns going first, when the disk is idle."""
    plain, cached = folder / "plain", folder / "cached"
    groups: list[list[tuple[str, Callable[[], object]]]] = [
        [
            ("write_plain", lambda: write_plain(plain, arrays)),
            ("write_cache", lambda: write_cache(cached, arrays)),
        ],
        [
            ("read_plain", lambda: read_plain(plain)),
            ("read_shuffled", lambda: read_shuffled(cached)),
            ("read_cache", lambda: read_cache(cached)),
        ],
        [("read_slices", lambda: read_slices(cached)), ("verify", lambda: verify(cached))],
    ]
    for group in groups:
        for name, action in group if plain_first else reversed(group):
            forget(folder)
            yield name, seconds(action)


def ring_rounds(folder: Path) -> Iterator[tuple[str, float]]:
    """Random batches from the ring and, in turn, by `torch.randint` from a tensor of the same size.

    The tensor is gathered with `index_select`, which is faster than indexing for half precision.
    """
    ring = DeviceRing(ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, seed=0), RING_BYTES)
    tensor = torch.randn(ring.filled, PLAN.sites[SITE]).half()
    for _ in range(200):
        yield "ring", seconds(lambda: ring.sample(BATCH_SIZE))
        yield "gather", seconds(lambda: tensor.index_select(0, torch.randint(len(tensor), (BATCH_SIZE,))))


def measure() -> dict[str, list[float]]:
    """Seconds of every action in every round."""
    times: dict[str, list[float]] = {}
    arrays = {site: torch.randn(PLAN.shard_shape(site)).half() for site in PLAN.sites}
    for round_number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as temporary:
            for name, taken in one_round(Path(temporary), arrays, round_number % 2 == 0):
                times.setdefault(name, []).append(taken)
            if round_number == ROUNDS - 1:
                for name, taken in ring_rounds(Path(temporary) / "cached"):
                    times.setdefault(name, []).append(taken)
    return times


def main() -> None:
    """Measure and write results/cache_io.json."""
    times = measure()
    median = {name: statistics.median(values) for name, values in times.items()}
    megabytes = PLAN.total_bytes() / 1e6
    site_megabytes = PLAN.bytes_per_site()[SITE] / 1e6
    rows = int(np.prod(PLAN.shape(SITE)[:4]))
    metrics = {
        "ratio_write": median["write_plain"] / median["write_cache"],
        "ratio_read_shuffled": median["read_plain"] / median["read_shuffled"],
        "ratio_read": median["read_plain"] / median["read_cache"],
        "ratio_ring": median["gather"] / median["ring"],
        "megabytes": megabytes,
        "rounds": ROUNDS,
        "write_plain_mb_per_s": megabytes / median["write_plain"],
        "write_cache_mb_per_s": megabytes / median["write_cache"],
        "read_plain_mb_per_s": site_megabytes / median["read_plain"],
        "read_cache_mb_per_s": site_megabytes / median["read_cache"],
        "shuffled_rows_per_s": rows / median["read_shuffled"],
        "ring_rows_per_s": BATCH_SIZE / median["ring"],
        "slice_milliseconds": 1e3 * median["read_slices"] / (PLAN.clips_per_shard * 8),
        "slice_bytes": PLAN.tokens * PLAN.sites[SITE] * 2,
        "verify_mb_per_s": megabytes / median["verify"],
        "load_average": os.getloadavg()[0],
        "seconds": {name: values for name, values in times.items() if name not in ("ring", "gather")},
    }
    file = write_result("cache_io", metrics)
    for name in ("ratio_write", "ratio_read_shuffled", "ratio_read", "ratio_ring"):
        print(f"{name}: {metrics[name]:.2f}")
    print(file)


if __name__ == "__main__":
    main()
