"""All GPU tests and benchmarks, in eight minutes on a large GPU, without a network.

    python -m benchmarks.gpu                        # all parts, on CUDA
    python -m benchmarks.gpu ring cache_paths       # only these parts
    python -m benchmarks.gpu --tiny --device cpu    # the same code at tiny sizes, as the tests run it

Each part runs in a separate process, so that one that fails, hangs or corrupts the GPU's state does not stop the
others. It writes `gpu_<part>.json` with peak memory, device and versions, or with the reason for its failure. The exit
code is 1 if any part failed. docs/speed.md lists the machine's requirements.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BUDGET = 480  # seconds, for all parts together
LONGEST = 150  # seconds, for one part
GOAL = 0.15  # of the time of one generation per arm
NEEDED = (
    "accelerate beartype crc32c diffusers greenlet jaxtyping nnsight num2words numcodecs numpy obstore pandas psutil "
    "pyarrow pydantic pytest safetensors scipy soundfile soxr tokenizers torch transformers xarray xxhash yaml zarr"
)
"""Packages that the parts import; missing ones are reported before they run."""

Metrics = dict[str, Any]


def tests(device: str, tiny: bool) -> Metrics:  # noqa: ARG001 - the tests have one size
    """Run the tests marked `gpu` or, on a CPU, their CPU counterparts."""
    chosen = (
        ["-m", "gpu", "tests/gpu", "tests/cache/test_ring.py", "tests/cache/test_shuffle.py"]
        if device.startswith("cuda")
        else ["tests/gpu"]
    )
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *chosen,
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if not report.exists():
            raise RuntimeError(f"pytest did not run: {done.stdout[-2000:]}")
        suite = next(ET.parse(report).iter("testsuite"))
    failed = {
        f"{case.get('classname')}::{case.get('name')}": str(problem.get("message"))[:500]
        for case in suite.iter("testcase")
        for problem in (*case.findall("failure"), *case.findall("error"))
    }
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    if counts["tests"] == counts["skipped"]:
        raise RuntimeError(f"no test ran: {done.stdout[-2000:]}")
    return {**counts, "failed": failed}


def tracing(device: str, tiny: bool) -> Metrics:
    """Compare a generation with every cross-attention output written to a cache with the same generation untraced."""
    from benchmarks.ace_step_15 import save_random_model
    from benchmarks.tracing import compare
    from tests.tiny_ace_step import save_tiny_pipeline
    from workbench.engine.runs import Clip
    from workbench.engine.settings import GenerationSettings
    from workbench.models import load_model

    with tempfile.TemporaryDirectory() as folder:
        if tiny:
            save_tiny_pipeline(Path(folder))
        else:
            save_random_model(Path(folder), blocks=24, device=device)
        model = load_model(folder, device=device, dtype="float32" if tiny else "bfloat16")
        settings = GenerationSettings(duration=1.0 if tiny else 10.0, num_steps=2 if tiny else 30)
        clips = [Clip("a slow violin song", seed) for seed in range(2 if tiny else 4)]
        return compare(model, clips, settings, batches=2, rounds=1 if tiny else 3)


def localisation_v1(device: str, tiny: bool) -> Metrics:
    """Compare a map of all blocks of ACE-Step v1 as one batch with one generation per arm."""
    from benchmarks.ace_step_v1 import save_random_model
    from tests.tiny_ace_step_v1 import save_tiny_v1

    return _localisation(save_tiny_v1, save_random_model, device, tiny, {"guidance_interval": 1.0})


def localisation_15(device: str, tiny: bool) -> Metrics:
    """Compare a map of all blocks of ACE-Step 1.5 as one batch with one generation per arm."""
    from benchmarks.ace_step_15 import save_random_model
    from tests.tiny_ace_step import save_tiny_pipeline

    return _localisation(save_tiny_pipeline, save_random_model, device, tiny, {})


def _localisation(
    save_tiny: Callable[[Path], Path],
    save_real: Callable[[Path, int, str], None],
    device: str,
    tiny: bool,
    options: dict[str, Any],
) -> Metrics:
    from benchmarks.published_size import measure
    from workbench.engine.settings import GenerationSettings
    from workbench.models import load_model

    settings = GenerationSettings(
        duration=1.0 if tiny else 10.0, num_steps=2 if tiny else 30, guidance_scale=5.0, options=options
    )
    with tempfile.TemporaryDirectory() as folder:
        if tiny:
            save_tiny(Path(folder))
        else:
            save_real(Path(folder), 24, device)
        model = load_model(folder, device=device, dtype="float32" if tiny else "bfloat16")
        metrics = measure(model, settings)
    return {"blocks": model.n_blocks, "steps": settings.num_steps, **metrics, "goal": GOAL}


def cache_paths(device: str, tiny: bool) -> Metrics:
    """Measure writing from the device to a cache on disk, and every path back."""
    from benchmarks.gpu_paths import measure_paths

    with tempfile.TemporaryDirectory() as folder:
        return measure_paths(Path(folder) / "cache", _plan(tiny), device, rounds=1 if tiny else 5)


def ring(device: str, tiny: bool) -> Metrics:
    """Compare random batches from the ring with random batches from a tensor."""
    from benchmarks.gpu_paths import measure_ring, write

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "cache", _plan(tiny), device)
        return measure_ring(Path(folder) / "cache", device)


def sae_training(device: str, tiny: bool) -> Metrics:
    """Compare training a sparse autoencoder from the cache with training on rows already on the device."""
    from benchmarks.gpu_paths import write
    from benchmarks.sae_from_cache import SPEC, WIDE_PLAN, measure
    from workbench.sae.topk import TopKObjective

    smaller = (
        {"expansion": 2, "objective": TopKObjective(k=4), "train_steps": 5, "batch_size": 64} if tiny else {}
    )
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "cache", _plan(True) if tiny else WIDE_PLAN, device)
        return measure(Path(folder) / "cache", device, SPEC.model_copy(update=smaller))


def _plan(tiny: bool) -> Any:
    """1 GiB of activations of the real width, or a few kilobytes."""
    from benchmarks.cache_io import PLAN

    if not tiny:
        return PLAN
    return PLAN.model_copy(update={"sites": dict.fromkeys(PLAN.sites, 32), "n_clips": 4, "tokens": 16})


PARTS: dict[str, Callable[[str, bool], Metrics]] = {
    part.__name__: part
    for part in (tests, cache_paths, ring, sae_training, localisation_15, localisation_v1, tracing)
}
"""The parts, quick ones first."""


def run_part(name: str, device: str, tiny: bool, folder: Path) -> Metrics:
    """Run one part in this process and write its JSON."""
    from benchmarks._result import write_result

    started = time.perf_counter()
    metrics = PARTS[name](device, tiny)
    write_result(f"gpu_{name}", {"seconds": time.perf_counter() - started, **metrics}, device, folder)
    return metrics


def run_apart(command: Sequence[str], seconds: float) -> str | None:
    """Run a part in a separate process, killed with its children on timeout; returns why it failed, or None."""
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"not finished after {seconds:.0f} s"
    if process.returncode == 0:
        return None
    sys.stderr.write(errors)
    lines = errors.strip().splitlines() or [""]
    return f"{lines[-1]} (exit code {process.returncode})"


def run_all(
    names: Sequence[str],
    arguments: Sequence[str],
    device: str,
    folder: Path,
    apart: Callable[[Sequence[str], float], str | None] = run_apart,
) -> list[str]:
    """Run parts one after the other within the budget; returns the names of those that failed."""
    from benchmarks._result import write_result

    end = time.monotonic() + BUDGET
    failed = []
    for name in names:
        started = time.monotonic()
        seconds = min(LONGEST, end - started)
        command = [sys.executable, "-m", "benchmarks.gpu", name, "--here", *arguments]
        reason = apart(command, seconds) if seconds > 0 else "no time was left"
        print(
            f"{time.monotonic() - started:6.1f} s  {name}: {f'FAILED: {reason}' if reason else 'done'}",
            flush=True,
        )
        if reason:
            failed.append(name)
            if not reason.startswith(PARTLY):
                write_result(f"gpu_{name}", {"failed": reason}, device, folder)
    return failed


PARTLY = "failed in part"


def main() -> None:
    """Run the parts named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"from {', '.join(PARTS)}; default: all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument(
        "--out", type=Path, help="folder for the JSON files; default: results/, or build/ with --tiny"
    )
    parser.add_argument(
        "--here", action="store_true", help="run in this process instead of a new one per part"
    )
    given = parser.parse_args()
    unknown = sorted(set(given.parts) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {unknown[0]}: choose from {', '.join(PARTS)}")
    names = given.parts or list(PARTS)
    folder = given.out or (ROOT / "build" / "gpu-tiny" if given.tiny else RESULTS)
    missing = [name for name in NEEDED.split() if importlib.util.find_spec(name) is None]
    if missing and not given.here:
        print(f"Missing packages, so parts that need them will fail: {', '.join(missing)}", flush=True)
    if given.here:
        parts = [run_part(name, given.device, given.tiny, folder) for name in names]
        if reasons := [str(metrics["failed"]) for metrics in parts if metrics.get("failed")]:
            sys.exit(f"{PARTLY}: {'; '.join(reasons)}")
        return
    arguments = [
        "--device",
        given.device,
        "--out",
        str(folder.resolve()),
        *(["--tiny"] if given.tiny else []),
    ]
    failed = run_all(names, arguments, given.device, folder)
    print(f"Results are in {folder}.")
    if failed:
        sys.exit(f"{len(failed)} of {len(names)} parts failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
