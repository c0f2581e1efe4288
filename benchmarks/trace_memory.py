"""Peak memory of a trace and of a trace of ten times as many clips, and their ratio.

Run as `python -m benchmarks.trace_memory`. Each trace runs in a new process.
"""

import json
import subprocess
import sys
import tempfile

from benchmarks._result import write_result

CLIPS = (32, 320)
CLIPS_PER_SHARD = 8
PROGRAM = """
import json, sys, time
from pathlib import Path
from workbench.studies.tracing import trace_study
from workbench.models import load_model
from workbench.engine.settings import GenerationSettings
from workbench.prompts.prompt_sets import load_prompt_set
from workbench.studies.study import StudySpec
spec = StudySpec(
    model="organism-shared", prompts=load_prompt_set("organism"), settings=GenerationSettings(num_steps=4),
    n_prompts=4, seeds=int(sys.argv[2]) // 4, sites=[f"tf{b}.{p}" for b in range(8) for p in ("cross_attn", "block")],
    steps=(0, 1, 2, 3), passes=("cond", "null"), cache_dtype="float32", clips_per_shard=int(sys.argv[3]),
)
started = time.perf_counter()
cache = trace_study(Path(sys.argv[1]) / "study", spec, load_model("organism-shared")).cache
status = open("/proc/self/status").read()  # getrusage would give the parent's peak
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"peak": peak, "seconds": time.perf_counter() - started, "stored": cache.plan.total_bytes()}))
"""


def trace(clips: int) -> dict[str, float]:
    """Peak resident bytes, seconds and stored bytes of one trace."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [folder, str(clips), str(CLIPS_PER_SHARD)]
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
        )
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and write results/trace_memory.json."""
    short, long = map(trace, CLIPS)
    metrics = {
        "clips": CLIPS,
        "clips_per_shard": CLIPS_PER_SHARD,
        "stored_megabytes": [short["stored"] / 1e6, long["stored"] / 1e6],
        "peak_megabytes": [short["peak"] / 1e6, long["peak"] / 1e6],
        "seconds": [short["seconds"], long["seconds"]],
        "ratio_peak": long["peak"] / short["peak"],
    }
    print(write_result("trace_memory", metrics).read_text())


if __name__ == "__main__":
    main()
