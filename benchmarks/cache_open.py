"""Time and memory of opening a cache of 10,000 clips and 24 sites in a new process and reading its first slice.

Run as `python -m benchmarks.cache_open`. The arrays are small, to save disk space; opening reads the plan and the
manifest, which are as large as those of a real cache.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._result import write_result
from benchmarks.cache_io import forget
from cache import CachePlan, CacheWriter

ROUNDS = 5
PLAN = CachePlan(
    sites={f"tf{block}.cross_attn": 2048 for block in range(24)},
    dtypes="bfloat16",
    n_clips=10_000,
    steps=(0,),
    sigmas=(1.0,),
    passes=("cond",),
    tokens=1,
    token_seconds=10.0,
    clips_per_shard=16,
    identity={"benchmark": "cache_open"},
)
PROGRAM = """
import json, sys, time
started = time.perf_counter()
from cache import ActivationCache
imported = time.perf_counter()
cache = ActivationCache(sys.argv[1])
cache.read("tf6.cross_attn", clips=[5000])
done = time.perf_counter()
status = open("/proc/self/status").read()  # getrusage would give the parent's peak
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"import_s": imported - started, "open_s": done - imported, "all_s": done - started, "peak": peak}))
"""


def build(folder: Path) -> None:
    """Write the cache."""
    clips = pd.DataFrame({"clip": range(PLAN.n_clips), "prompt": [f"song {k}" for k in range(PLAN.n_clips)]})
    values = np.zeros(PLAN.shard_shape("tf0.cross_attn"), dtype=np.uint16)
    with CacheWriter(folder, PLAN, clips) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, dict.fromkeys(PLAN.sites, values))


def main() -> None:
    """Measure and write results/cache_open.json."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "cache"
        build(folder)
        runs = []
        for _ in range(ROUNDS):
            forget(folder)
            run = subprocess.run(
                [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(run.stdout))
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    metrics = {
        "clips": PLAN.n_clips,
        "sites": len(PLAN.sites),
        "shards": PLAN.n_shards,
        "open_and_first_slice_s": median["open_s"],
        "with_imports_s": median["all_s"],
        "peak_megabytes": median["peak"] / 1e6,
    }
    print(write_result("cache_open", metrics).read_text())


if __name__ == "__main__":
    main()
