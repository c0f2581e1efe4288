"""Peak memory of training sparse autoencoders, and of a training of ten times as many steps, and their ratio.

Run as `python -m benchmarks.sae_memory`. Each training reads such a cache again and again, and runs
in a new process.
"""

import json
import subprocess
import sys

from benchmarks._result import write_result

STEPS = (200, 2000)
PROGRAM = """
import json, sys, tempfile, time
from pathlib import Path
import numpy as np, pandas as pd
from analyses.sae.train import train_sae, train_spec
from cache import ActivationCache, CachePlan, CacheWriter
from cache.shuffle import ShuffledRows
SITE = "tf0.mlp"
plan = CachePlan(
    sites={SITE: 256}, dtypes="float32", n_clips=32, steps=(0,), sigmas=(1.0,), passes=("cond",), tokens=256,
    token_seconds=0.08, clips_per_shard=4, identity={"benchmark": "sae_memory"},
)
with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary) / 'cache'
    values = np.random.default_rng(0).standard_normal(plan.shape(SITE), dtype=np.float32)
    with CacheWriter(folder, plan, pd.DataFrame({"clip": range(plan.n_clips)})) as writer:
        for shard in writer.missing():
            first, last = plan.shard_clips(shard)
            writer.write_shard(shard, {SITE: values[first : last + 1]})
    # The buffer holds a part of the rows, so that every pass reads the store.
    rows = ShuffledRows(ActivationCache(folder), SITE, 256, seed=0, buffer_bytes=4 * 2**20)
    spec = train_spec(SITE, expansion=4, k=8, train_steps=int(sys.argv[1]), batch_size=256)
    started = time.perf_counter()
    train_sae(rows, spec)
    status = open("/proc/self/status").read()  # getrusage would give the parent's peak
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"peak": peak, "seconds": time.perf_counter() - started}))
"""


def train(steps: int) -> dict[str, float]:
    """Peak resident bytes and seconds of one training."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(steps)], stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and write results/sae_memory.json."""
    short, long = map(train, STEPS)
    metrics = {
        "steps": STEPS,
        "peak_megabytes": [short["peak"] / 1e6, long["peak"] / 1e6],
        "seconds": [short["seconds"], long["seconds"]],
        "ratio_peak": long["peak"] / short["peak"],
    }
    print(write_result("sae_memory", metrics, "cpu").read_text())


if __name__ == "__main__":
    main()
