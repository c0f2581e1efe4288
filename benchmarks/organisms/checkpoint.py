"""Training state on disk: written whole or not at all, read back without executing anything."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cache.errors import UserError
from workbench.files import replacing


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, and dicts and lists of them) to a temporary file, then rename it."""
    with replacing(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the state saved at `path`, or None if there is none; raise UserError if it is damaged."""
    if not path.exists():
        return None
    with restoring(path):
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError("no state of a training")
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn errors of reading the file `path` of an earlier training into a UserError that it is damaged."""
    try:
        yield
    except _DAMAGED as error:
        raise UserError(
            f"{path} is damaged: delete it and run the command again to make a new one."
        ) from error


# What torch and numpy raise for files that are cut, of another format, or hold other things than were saved.
_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    AttributeError,
)
