"""Model folders: their configurations are looked at before a library loads them, and nothing of theirs is run."""

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
"""Of a part's configuration: no network has as many layers, channels or tokens."""
MOST_TENSORS = 100_000
_SPARE = 2**22  # numbers that a network may have beside those in its files, such as tables of positions
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# Whose classes a pipeline's parts may be; another name would be a Python file of the folder's own.
_LIBRARIES = {"diffusers", "transformers", "ace_step", "stable_audio", "audioldm2"}


def check_model_folder(folder: Path) -> None:
    """Look through the JSON files of a model's folder.

    Raises:
        UserError: if one is no JSON object, asks for code of the folder's own (`auto_map`, or a part of another
            library), or has numbers that no network has.
    """
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        if file.exists() and not file.is_file():
            raise UserError(f"{file} is no file: get the model anew.")
        if not file.is_file():  # a link that leads nowhere
            continue
        settings = read_settings(file)
        _refuse_code(settings, file)
        if file.name == CONFIG:
            _refuse_absurd(settings, file)


def read_settings(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model; raises UserError for anything else."""
    if file.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{file} is larger than {MAX_BYTES} bytes, which no configuration is: get the model anew."
        )
    try:
        return parse_document(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): get the model anew.") from error


@contextmanager
def loading(name: str, folder: Path) -> Iterator[None]:
    """What a library builds in this block from a model's folder fits the folder's weights, and fails with a sentence.

    Without a configuration, or with another one, a library builds a network of its own default size, which can be
    larger than the memory. Every number of a network has at least one byte in the files of weights.

    Raises:
        UserError: as `check_model_folder` does; for networks larger than the weights; for weights that are missing,
            damaged, or pickled with more than tensors.
    """
    from huggingface_hub.errors import StrictDataclassError  # slow to import

    check_model_folder(folder)
    try:
        with _bounded(folder):
            yield
    except pickle.UnpicklingError as error:  # its own text advises to run them
        raise UserError(
            f"The model '{name}' has pickled weights in {folder} that are no plain tensors, and nothing of theirs was "
            "run: get it as safetensors."
        ) from error
    except (*_FAILURES, StrictDataclassError) as error:
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"The model '{name}' cannot be loaded from {folder}: {told}") from error


# What the libraries raise for configurations and weights that do not fit them or each other.
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
    """Refuse parameters and buffers, as they are made, that outgrow a folder's weights."""
    from torch.nn.modules import module  # slow to import

    allowed = _SPARE + sum(
        file.stat().st_size for file in folder.rglob("*") if file.suffix in _WEIGHTS and file.is_file()
    )
    sizes: dict[tuple[int, str], int] = {}
    total = 0

    def count(owner: Any, name: str, tensor: Any) -> None:
        nonlocal total
        size = 0 if tensor is None else tensor.numel()
        key = (id(owner), name)  # loading puts another tensor into a place
        total += size - sizes.get(key, 0)
        sizes[key] = size
        if total > allowed or len(sizes) > MOST_TENSORS:
            raise UserError(
                f"The configurations in {folder} describe a larger network than its files of weights hold: get the "
                "model anew."
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
            raise UserError(f"{file} has the number {value:.3g}, which no network has: get the model anew.")


def _refuse_code(settings: dict[str, Any], file: Path) -> None:
    foreign = "auto_map" in settings
    if file.name == INDEX:
        parts = [
            value for name, value in settings.items() if not name.startswith("_") and isinstance(value, list)
        ]
        foreign |= any(part and part[0] is not None and part[0] not in _LIBRARIES for part in parts)
    if foreign:
        raise UserError(
            f"{file} asks for Python code that came with the model, which is never run: use a model in diffusers' own "
            "format."
        )
