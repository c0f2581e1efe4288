"""Results of benchmarks: one JSON file per run, with a description of the machine and the peak memory."""

import json
import os
import platform
import resource
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from workbench.files import replacing

RESULTS = Path(__file__).parent / "results"


def write_result(
    name: str, metrics: dict[str, Any], device: str | None = None, folder: Path = RESULTS
) -> Path:
    """Write `<name>.json` to a folder: the metrics and the machine they were made on.

    The default `device` is a GPU if there is one.
    """
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    machine = {
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
    libraries = {library: version(library) for library in ("torch", "diffusers", "nnsight", "zarr", "numpy")}
    document = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "metrics": metrics,
        "peak_memory_gib": peak_memory(on_gpu),
        "machine": machine,
        "libraries": libraries,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    with replacing(file) as partial:
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return file


def peak_memory(on_gpu: bool) -> dict[str, float]:
    """Peak memory of this process in GiB, and of its tensors on the GPU."""
    peaks = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    return peaks | {"device": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else peaks


def synchronize(device: str) -> None:
    """Wait until a device has finished its work: GPU calls return before they are done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
