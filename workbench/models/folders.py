"""Check model folders before a library loads them, so that none of their code is run."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.errors import UserError
from workbench.documents import parse_document

MAX_BYTES = 2**28
INDEX = "model_index.json"
CONFIG = "config.json"
LARGEST_NUMBER = 100_000_000
"""Upper limit of numbers in a configuration: no network has as many layers, channels or tokens."""
MOST_TENSORS = 100_000
_SPARE = 2**22  # numbers that a network may have beyond those in its files, such as position tables
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# Libraries of a pipeline's components; any other name would be a Python file in the folder.
_LIBRARIES = {"diffusers", "transformers", "ace_step", "stable_audio", "audioldm2"}


def check_model_folder(folder: Path) -> None:
    """Check the JSON files of a model's folder.

    Raises:
        UserError: if one is not a JSON object, refers to code in the folder (`auto_map`, or a component of another
            library), or has implausible numbers.
    """
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        if file.exists() and not file.is_file():
            raise UserError(f"{file} is not a regular file. Get the model again.")
        if not file.is_file():  # a broken link
            continue
        settings = read_settings(file)
        _refuse_code(settings, file)
        if file.name == CONFIG:
            _refuse_absurd(settings, file)


def read_settings(file: Path) -> dict[str, Any]:
    """Read the JSON object in a file of a model; raise UserError for anything else."""
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"{file} must have at most {MAX_BYTES} bytes. Get the model again.")
    try:
        return parse_document(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}). Get the model again.") from error


@contextmanager
def loading(name: str, folder: Path) -> Iterator[None]:
    """Check a folder, limit the networks built from it in this block, and turn loading errors into UserError.

    With a missing or wrong configuration, a library builds a network of its default size, which can exceed the memory.
    Every number of a network has at least one byte in the weight files, so larger networks raise an error.

    Raises:
        UserError: as `check_model_folder` does; for networks larger than the weights; or for weights that are missing,
            damaged, or pickled with more than tensors.
    """
    from huggingface_hub.errors import StrictDataclassError  # slow to import

    check_model_folder(folder)
    try:
        with _bounded(folder):
            yield
    except pickle.UnpicklingError as error:  # its own message suggests running them
        raise UserError(
            f"The model '{name}' has pickled weights in {folder} with more than plain tensors. They were not loaded. "
            "Get the model as safetensors."
        ) from error
    except (*_FAILURES, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise UserError(f"Cannot load the model '{name}' from {folder}: {reason}.") from error


# Errors of the libraries for invalid or mismatched configurations and weights.
_FAILURES = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)


@contextmanager
def _bounded(folder: Path) -> Iterator[None]:
    """Raise UserError as soon as parameters and buffers outgrow a folder's weights."""
    from torch.nn.modules import module  # slow to import

    allowed = _SPARE + sum(
        file.stat().st_size for file in folder.rglob("*") if file.suffix in _WEIGHTS and file.is_file()
    )
    sizes: dict[tuple[int, str], int] = {}
    total = 0

    def count(owner: Any, name: str, tensor: Any) -> None:
        nonlocal total
        size = 0 if tensor is None else tensor.numel()
        key = (id(owner), name)  # loading replaces tensors
        total += size - sizes.get(key, 0)
        sizes[key] = size
        if total > allowed or len(sizes) > MOST_TENSORS:
            raise UserError(
                f"The configurations in {folder} describe a network larger than its weight files. Get the model again."
            )

    hooks = (
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _refuse_absurd(settings: dict[str, Any], file: Path) -> None:
    values: list[Any] = [settings]
    while values:
        value = values.pop()
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise UserError(
                f"{file} has the number {value:.3g}, which is implausibly large. Get the model again."
            )


def _refuse_code(settings: dict[str, Any], file: Path) -> None:
    foreign = "auto_map" in settings
    if file.name == INDEX:
        parts = [
            value for name, value in settings.items() if not name.startswith("_") and isinstance(value, list)
        ]
        foreign |= any(part and part[0] is not None and part[0] not in _LIBRARIES for part in parts)
    if foreign:
        raise UserError(
            f"{file} refers to Python code in the model's folder, which is never run. Use a model in diffusers' own "
            "format."
        )
