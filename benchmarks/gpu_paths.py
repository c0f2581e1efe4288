"""Throughput of the paths from a cache on disk to a CUDA tensor.

Run as `python -m benchmarks.gpu_paths` on a machine with a GPU. It measures the workbench's own path (host threads that
read and check chunks, pinned memory, asynchronous copies) and, if they can be imported, zarr's GPU buffers
(`zarr.config.enable_gpu()`, needs CuPy) and reading files directly into device memory (kvikio, with GPUDirect Storage
if the machine has it; without checksums).
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from benchmarks._result import synchronize, write_result
from benchmarks.cache_io import PLAN, SITE, forget
from benchmarks.tracing import interleaved_seconds
from cache import ActivationCache, CachePlan, CacheWriter
from cache.pipeline import ShardPipeline
from cache.protocol import shard_file_name
from cache.ring import DeviceRing

ROUNDS = 5
BATCH_SIZE = 4096
RING_BYTES = 8 * 2**30
DRAWS = 200


def write(folder: Path, plan: CachePlan, device: str) -> float:
    """Write the plan's shards from tensors on the device through the pipeline; returns the seconds."""
    values = {
        site: torch.randn((plan.clips_per_shard, *plan.shape(site)[2:]), device=device).half()
        for site in plan.sites
    }
    synchronize(device)
    started = time.perf_counter()
    clips = pd.DataFrame({"clip": range(plan.n_clips)})
    with CacheWriter(folder, plan, clips) as writer, ShardPipeline(writer, device) as pipeline:
        for shard in writer.missing():
            pipeline.begin(shard)
            for step in plan.steps:
                for site, acts in values.items():
                    pipeline.add(site, step, acts)
            pipeline.end()
    return time.perf_counter() - started


def through_pinned(folder: Path, device: str) -> None:
    """Read shuffled batches to the device: the workbench's path."""
    for _ in ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, seed=0, device=device):
        pass
    synchronize(device)


def through_zarr(folder: Path, device: str) -> None:
    """Read whole shards as CuPy arrays."""
    import zarr

    with zarr.config.enable_gpu():
        array = zarr.open_array(folder / SITE, mode="r")
        for first, last in ActivationCache(folder).plan.shards:
            torch.from_dlpack(array[first : last + 1])
    synchronize(device)


def through_kvikio(folder: Path, device: str) -> None:
    """Read the bytes of whole shard files into device memory."""
    import kvikio

    for shard in range(ActivationCache(folder).plan.n_shards):
        path = folder / shard_file_name(SITE, shard)
        buffer = torch.empty(path.stat().st_size, dtype=torch.uint8, device=device)
        with kvikio.CuFile(path, "r") as file:
            file.read(buffer)
    synchronize(device)


def measure_paths(folder: Path, plan: CachePlan, device: str, rounds: int = ROUNDS) -> dict[str, object]:
    """Measure writing a new cache to `folder`, and reading it by every available path, alternating.

    If zarr's or kvikio's path fails, it is listed under `failed` with the reason, and the others continue.
    """
    written = write(folder, plan, device)
    paths: dict[str, Callable[[Path, str], None]] = {"pinned": through_pinned}
    not_installed, failed = [], {}
    for name, needs, path in (("zarr_gpu", "cupy", through_zarr), ("kvikio", "kvikio", through_kvikio)):
        if not device.startswith("cuda") or not importlib.util.find_spec(needs):
            not_installed.append(name)
            continue
        try:
            path(folder, device)
        except Exception as error:  # noqa: BLE001 - any error of the other libraries is a result
            failed[name] = f"{type(error).__name__}: {error}"
        else:
            paths[name] = path
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            forget(folder)
            started = time.perf_counter()
            path(folder, device)
            times[name].append(time.perf_counter() - started)
    megabytes = plan.bytes_per_site()[SITE] / 1e6
    return {
        "write_mb_per_s": plan.total_bytes() / 1e6 / written,
        **{f"{name}_mb_per_s": megabytes / statistics.median(taken) for name, taken in times.items()},
        "not_installed": not_installed,
        "failed": failed,
    }


def measure_ring(folder: Path, device: str, budget: int = RING_BYTES) -> dict[str, float]:
    """Rows per second of random batches from the ring, and by `torch.randint` from a tensor of the same size."""
    rows = ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, 0, device=device)
    with DeviceRing(rows, budget, device) as ring:
        tensor = torch.randn(ring.filled, rows.channels, device=device).half()

        def many(draw: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                for _ in range(DRAWS):
                    draw()
                synchronize(device)

            return run

        ours, plain = interleaved_seconds(
            many(lambda: ring.sample(BATCH_SIZE)),
            many(lambda: tensor.index_select(0, torch.randint(len(tensor), (BATCH_SIZE,), device=device))),
        )
    return {"ring_rows_per_s": DRAWS * BATCH_SIZE / ours, "ratio_ring": plain / ours}


def main() -> None:
    """Measure and write results/gpu_paths.json."""
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "cache"
        metrics = measure_paths(folder, PLAN, "cuda") | measure_ring(folder, "cuda")
    print(write_result("gpu_paths", metrics).read_text())


if __name__ == "__main__":
    main()
