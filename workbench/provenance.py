"""Where a result comes from: code, weights, libraries, device and time."""

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cache.protocol import canonical_json

DISTRIBUTION = "audio-diffusion-workbench"
LIBRARIES = ("torch", "diffusers", "nnsight", "transformers", "numpy", "scikit-learn", "xarray", "zarr")


def content_hash(value: Any, length: int = 16) -> str:
    """First `length` hexadecimal digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def weights_hash(folder: Path) -> str:
    """Hash of a model folder: SHA-256 over names and contents of its weight and JSON files, cards left out."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*/*")), folder / "model_index.json"]:
        if path.is_file() and path.suffix in {".safetensors", ".json", ".bin", ".txt"}:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def code_version() -> str:
    """Version of the installed distribution."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"


def provenance(**facts: Any) -> dict[str, Any]:
    """Facts that let a reader repeat a computation: versions, platform and date, together with the given `facts`."""
    return {
        "code_version": code_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }
