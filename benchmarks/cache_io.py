"""Writing and reading activations through the cache, against the same bytes in plain files.

Run as `python -m benchmarks.cache_io`. Both sides sync what they write and take turns in the same rounds; before
each reading the kernel is told to forget the files. Ratios are speed of the cache / speed of plain files.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from benchmarks._result import write_result
from cache import ActivationCache, CachePlan, CacheWriter

ROUNDS = 5
BATCH_SIZE = 4096
PLAN = CachePlan(
    sites={"tf0.cross_attn": 2048, "tf1.cross_attn": 2048},
    n_clips=4,
    steps=(0, 20, 40, 59),
    sigmas=(1.0, 0.7, 0.3, 0.02),
    passes=("cond", "null"),
    tokens=1024,
    token_seconds=0.04,
    dtype="float16",
    clips_per_shard=2,
    identity={"benchmark": "cache_io"},
)
SITE = "tf0.cross_attn"
Values = Float[np.ndarray, "clip step pass token channel"]


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def forget(folder: Path) -> None:
    """Ask the kernel to drop a folder's files from memory, so that the next reading comes from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_plain(folder: Path, shards: list[dict[str, Values]]) -> None:
    """One synced file per site and shard, values only."""
    folder.mkdir()
    for shard, arrays in enumerate(shards):
        for site, values in arrays.items():
            with (folder / f"{site}-{shard}").open("wb") as file:
                values.tofile(file)
                file.flush()
                os.fsync(file.fileno())


def write_cache(folder: Path, shards: list[dict[str, Values]]) -> None:
    """The same values through the cache."""
    with CacheWriter(folder, PLAN, pd.DataFrame({"clip": range(PLAN.n_clips)})) as writer:
        for shard, arrays in enumerate(shards):
            writer.write_shard(shard, arrays)


def read_plain(folder: Path) -> None:
    """All stored values, file by file."""
    for path in sorted(folder.iterdir()):
        np.fromfile(path, np.float16)


def read_cache(folder: Path) -> None:
    """The same values through the cache, shard by shard, as stored."""
    cache = ActivationCache(folder)
    for site in cache.sites:
        for first, last in PLAN.shards:
            shape = (last - first + 1, *PLAN.shape(site)[1:])
            cache.read_stored(site, [range(first, last + 1), *map(range, shape[1:])])


def read_pages(folder: Path) -> None:
    """Every page (clip, step, pass) of one site on its own, as float32: what a browser asks for."""
    cache = ActivationCache(folder)
    for clip in range(PLAN.n_clips):
        for step in PLAN.steps:
            for name in PLAN.passes:
                cache.read(SITE, clips=[clip], steps=[step], passes=[name])


def read_rows(folder: Path) -> None:
    """Every row of one site in shuffled float32 batches: what training asks for."""
    for _ in ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, seed=0):
        pass


def one_round(
    folder: Path, shards: list[dict[str, Values]], plain_first: bool
) -> Iterator[tuple[str, float]]:
    """Name and seconds of each action; which side goes first alternates, because it finds the disk idle."""
    plain, cached = folder / "plain", folder / "cached"
    pairs: list[list[tuple[str, Callable[[], object]]]] = [
        [
            ("write_plain", lambda: write_plain(plain, shards)),
            ("write_cache", lambda: write_cache(cached, shards)),
        ],
        [("read_plain", lambda: read_plain(plain)), ("read_cache", lambda: read_cache(cached))],
        [("read_pages", lambda: read_pages(cached)), ("read_rows", lambda: read_rows(cached))],
        [("verify", lambda: ActivationCache(cached).verify())],
    ]
    for pair in pairs:
        for name, action in pair if plain_first else reversed(pair):
            forget(folder)
            yield name, seconds(action)


def main() -> None:
    """Measure and write results/cache_io.json."""
    rng = np.random.default_rng(0)
    arrays = {
        site: rng.standard_normal((2, *PLAN.shape(site)[1:]), dtype=np.float32).astype(np.float16)
        for site in PLAN.sites
    }
    times: dict[str, list[float]] = {}
    for round_number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as temporary:
            for name, seconds_taken in one_round(Path(temporary), [arrays, arrays], round_number % 2 == 0):
                times.setdefault(name, []).append(seconds_taken)
    median = {name: statistics.median(values) for name, values in times.items()}
    megabytes = PLAN.total_bytes() / 1e6
    site_rows = int(np.prod(PLAN.shape(SITE)[:4]))
    figures = {
        "ratio_write": median["write_plain"] / median["write_cache"],
        "ratio_read": median["read_plain"] / median["read_cache"],
        "megabytes": megabytes,
        "rounds": ROUNDS,
        "dtype": PLAN.dtype,
        "page_bytes": PLAN.tokens * PLAN.sites[SITE] * PLAN.itemsize,
        "shard_file_bytes": PLAN.bytes_of([0])[SITE],
        "write_plain_mb_per_s": megabytes / median["write_plain"],
        "write_cache_mb_per_s": megabytes / median["write_cache"],
        "read_plain_mb_per_s": megabytes / median["read_plain"],
        "read_cache_mb_per_s": megabytes / median["read_cache"],
        "page_milliseconds": 1e3 * median["read_pages"] / (site_rows / PLAN.tokens),
        "shuffled_rows_per_s": site_rows / median["read_rows"],
        "verify_mb_per_s": megabytes / median["verify"],
        "load_average": os.getloadavg()[0],
        "seconds": times,
    }
    file = write_result("cache_io", figures)
    print(
        f"cache / plain files: write {figures['ratio_write']:.2f}, read {figures['ratio_read']:.2f} ({file})"
    )


if __name__ == "__main__":
    main()
