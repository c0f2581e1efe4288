"""Speed of writing and reading activations, compared with SAELens' cached activations on the same rows.

Run as `python -m benchmarks.saelens_peer PYTHON`, with the interpreter of an environment that has sae-lens. Both sides
write the same float32 rows in the same number of shards and read one epoch of mixed batches; the page cache is dropped
before reading. SAELens does not sync what it writes; the cache does.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._result import write_result
from benchmarks.cache_io import forget
from cache import ActivationCache, CachePlan, CacheWriter

ROUNDS = 3
ROWS, CHANNELS, CONTEXT, SHARDS, BATCH_SIZE = 65_536, 2048, 256, 8, 4096
SITE = "tf6.cross_attn"
PLAN = CachePlan(
    sites={SITE: CHANNELS},
    dtypes="float32",
    n_clips=ROWS // CONTEXT,
    steps=(0,),
    sigmas=(1.0,),
    passes=("cond",),
    tokens=CONTEXT,
    token_seconds=0.08,
    clips_per_shard=ROWS // CONTEXT // SHARDS,
    identity={"benchmark": "saelens_peer"},
)
PEER = Path(__file__).parent / "peers" / "saelens_store.py"


def ours(folder: Path, rows: np.ndarray) -> dict[str, float]:
    """Seconds to write the rows and read them as mixed batches through the cache."""
    values = rows.reshape(PLAN.shape(SITE))
    started = time.perf_counter()
    with CacheWriter(folder, PLAN, pd.DataFrame({"clip": range(PLAN.n_clips)})) as writer:
        for shard in writer.missing():
            first, last = PLAN.shard_clips(shard)
            writer.write_shard(shard, {SITE: values[first : last + 1]})
    written = time.perf_counter()
    forget(folder)
    reading = time.perf_counter()
    n_read = sum(len(batch) for batch in ActivationCache(folder).shuffled_rows(SITE, BATCH_SIZE, seed=0))
    return {"write_s": written - started, "read_s": time.perf_counter() - reading, "rows_read": n_read}


def peer(python: str, folder: Path, file: Path) -> dict[str, float]:
    """The same with SAELens."""
    arguments = [python, str(PEER), str(file), str(folder), str(SHARDS), str(CONTEXT), str(BATCH_SIZE)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and write results/saelens_peer.json."""
    if len(sys.argv) < 2:
        sys.exit("Give the Python of an environment with sae-lens: python -m benchmarks.saelens_peer PYTHON")
    rows = np.random.default_rng(0).standard_normal((ROWS, CHANNELS), dtype=np.float32)
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            np.save(folder / "rows.npy", rows)
            runs = {
                "saelens": peer(sys.argv[1], folder / "saelens", folder / "rows.npy"),
                "cache": ours(folder / "cache", rows),
            }
        for name, run in runs.items():
            kept = best.setdefault(name, run)
            best[name] = {key: min(kept[key], value) for key, value in run.items()}
    metrics: dict[str, object] = {"rows": ROWS, "channels": CHANNELS, "dtype": "float32", "rounds": ROUNDS}
    for action in ("write", "read"):
        for name, run in best.items():
            metrics[f"{action}_rows_per_s_{name}"] = ROWS / run[f"{action}_s"]
        metrics[f"ratio_{action}"] = best["saelens"][f"{action}_s"] / best["cache"][f"{action}_s"]
    print(write_result("saelens_peer", metrics).read_text())


if __name__ == "__main__":
    main()
