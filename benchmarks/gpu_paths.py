"""Ways from a cache on disk to a CUDA tensor: pages per second of each, in one run.

Run as `python -m benchmarks.gpu_paths` on a machine with a GPU. Measured are the product's own path (host threads that
read and check chunks, pinned memory, a copy that does not wait), and, where they can be imported, zarr's GPU buffers
(`zarr.config.enable_gpu()`, needs CuPy) and reading the file straight into device memory (kvikio, with GPUDirect
Storage where the machine has it; without checksums).
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

from benchmarks._result import write_result
from benchmarks.cache_io import PLAN, SITE, forget
from benchmarks.tracing import interleaved_seconds
from cache import ActivationCache, CacheWriter
from cache.pipeline import ShardPipeline
from cache.protocol import shard_file_name
from cache.ring import DeviceRing

ROUNDS = 5
BATCH_SIZE = 4096
RING_BYTES = 8 * 2**30


def write(folder: Path) -> float:
    """Write the plan's shards from device tensors through the pipeline; gives the seconds."""
    values = {
        site: torch.randn((PLAN.clips_per_shard, *shape[2:]), device="cuda").half()
        for site, shape in ((site, PLAN.shape(site)) for site in PLAN.sites)
    }
    torch.cuda.synchronize()
    started = time.perf_counter()
    clips = pd.DataFrame({"clip": range(PLAN.n_clips)})
    with CacheWriter(folder, PLAN, clips) as writer, ShardPipeline(writer, "cuda") as pipeline:
        for shard in writer.missing():
            pipeline.begin(shard)
            for step in PLAN.steps:
                for site, page in values.items():
                    pipeline.add(site, step, page)
            pipeline.end()
    return time.perf_counter() - started


def through_pinned(folder: Path) -> None:
    """Shuffled batches on the device: the product's path."""
    for _ in ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, seed=0, device="cuda"):
        pass
    torch.cuda.synchronize()


def through_zarr(folder: Path) -> None:
    """Whole shards as CuPy arrays."""
    import zarr

    with zarr.config.enable_gpu():
        array = zarr.open_array(folder / SITE, mode="r")
        for first, last in PLAN.shards:
            torch.from_dlpack(array[first : last + 1])
    torch.cuda.synchronize()


def through_kvikio(folder: Path) -> None:
    """The bytes of whole shard files in device memory."""
    import kvikio

    for shard in range(PLAN.n_shards):
        path = folder / shard_file_name(SITE, shard)
        buffer = torch.empty(path.stat().st_size, dtype=torch.uint8, device="cuda")
        with kvikio.CuFile(path, "r") as file:
            file.read(buffer)
    torch.cuda.synchronize()


def ring_against_gather(folder: Path) -> dict[str, float]:
    """Rows per second of random batches from the ring, and by `torch.randint` from a tensor of its size."""
    ring = DeviceRing(ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, 0), RING_BYTES, "cuda")
    tensor = torch.randn(ring.filled, PLAN.sites[SITE], device="cuda").half()

    def many(draw: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(200):
                draw()
            torch.cuda.synchronize()

        return run

    ours, plain = interleaved_seconds(
        many(lambda: ring.sample(BATCH_SIZE)),
        many(lambda: tensor.index_select(0, torch.randint(len(tensor), (BATCH_SIZE,), device="cuda"))),
    )
    return {"ring_rows_per_s": 200 * BATCH_SIZE / ours, "ratio_ring": plain / ours}


def main() -> None:
    """Measure and write results/gpu_paths.json."""
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device.")
    paths: dict[str, Callable[[Path], None]] = {"pinned": through_pinned}
    if importlib.util.find_spec("cupy"):
        paths["zarr_gpu"] = through_zarr
    if importlib.util.find_spec("kvikio"):
        paths["kvikio"] = through_kvikio
    megabytes = PLAN.bytes_per_site()[SITE] / 1e6
    times: dict[str, list[float]] = {name: [] for name in paths}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "cache"
        written = write(folder)
        for _ in range(ROUNDS):
            for name, path in paths.items():
                forget(folder)
                started = time.perf_counter()
                path(folder)
                times[name].append(time.perf_counter() - started)
        ring = ring_against_gather(folder)
    speeds = {f"{name}_mb_per_s": megabytes / statistics.median(taken) for name, taken in times.items()}
    figures = {
        "write_mb_per_s": PLAN.total_bytes() / 1e6 / written,
        **speeds,
        **ring,
        "not_installed": [name for name in ("zarr_gpu", "kvikio") if name not in paths],
    }
    print(write_result("gpu_paths", figures).read_text())


if __name__ == "__main__":
    main()
