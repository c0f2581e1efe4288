"""Provenance of results: code, weights, libraries, device and time."""

import hashlib
import platform
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cache.protocol import canonical_json
from workbench.files import file_version

DISTRIBUTION = "audio-diffusion-workbench"
# The files that determine a model's behaviour: weights, configurations, vocabularies.
_DECIDING = {".safetensors", ".json", ".bin", ".txt", ".model"}
LIBRARIES = ("torch", "diffusers", "nnsight", "transformers", "numpy", "scikit-learn", "xarray", "zarr")


def content_hash(value: Any, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, which is read once per version of the file."""
    return _file_hash(path, file_version(path))


@lru_cache(maxsize=64)
def _file_hash(path: Path, version: tuple[int, int, int]) -> str:  # noqa: ARG001 - tells versions apart
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 over names and contents of the files that determine a model's behaviour (not its cards)."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*/*")), folder / "model_index.json"]:
        if path.is_file() and path.suffix in _DECIDING:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()[:16]


def code_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"


def provenance(**facts: Any) -> dict[str, Any]:
    """Return the facts needed to repeat a computation: versions, platform, date, and the given `facts`."""
    return {
        "code_version": code_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }
