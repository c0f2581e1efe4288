"""Results of benchmarks: one JSON file per run, with the machine's facts."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from workbench.files import replacing

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, figures: dict[str, Any]) -> Path:
    """Write `results/<name>.json`: the figures, and what they were measured on."""
    machine = {
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
    libraries = {library: version(library) for library in ("torch", "diffusers", "nnsight", "zarr", "numpy")}
    document = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "figures": figures,
        "machine": machine,
        "libraries": libraries,
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    with replacing(file) as partial:
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return file
