"""What every artefact is checked for."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cache.errors import UserError

_SLUG = re.compile(r"[A-Za-z0-9][\w.+-]{0,79}")


class Room:
    """The memory that the arrays of one file may take; raises UserError when they take more.

    A pickle can name the same bytes as often as it likes. An honest one names most of them once, so all of its arrays
    together are not much larger than the file.
    """

    _OF_ANY_FILE = 2**26
    _TIMES_THE_FILE = 4  # half precision becomes single, and arrays may be shared a little
    _OF_ANY_ARRAY = 256

    def __init__(self, file: Path) -> None:
        self.file = file
        self.left = self._TIMES_THE_FILE * file.stat().st_size + self._OF_ANY_FILE

    def take(self, value: object) -> None:
        """Count an array before it is converted or copied."""
        self.left -= self._OF_ANY_ARRAY + (value.size * 4 if isinstance(value, np.ndarray) else 0)
        if self.left < 0:
            raise UserError(
                f"{self.file} names the same numbers so often that they would fill the memory: it is refused."
            )


def mapping(value: object, what: str) -> Mapping[Any, Any]:
    """`value`, which must be a dict that is not empty."""
    if not isinstance(value, dict) or not value:
        raise UserError(f"{what} must be a non-empty dict.")
    return value


def vector(value: object, what: str) -> Float[np.ndarray, " channel"]:
    """`value` as float32, which must be an array of one axis, not empty, with finite numbers."""
    return numbers(value, 1, what)


def table(value: object, what: str) -> Float[np.ndarray, "row column"]:
    """The same with two axes."""
    return numbers(value, 2, what)


def numbers(value: object, axes: int, what: str) -> Float[np.ndarray, "..."]:
    """`value` as float32: an array of `axes` axes, none of them empty, of finite floating-point numbers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise UserError(f"{what} is no array of floating-point numbers.")
    if value.ndim != axes or value.size == 0:
        raise UserError(
            f"{what} has the shape {value.shape}, where {axes} axes are needed and none is empty."
        )
    if not np.isfinite(value).all():
        raise UserError(f"{what} has numbers that are not finite (NaN or infinite).")
    return np.ascontiguousarray(value, dtype=np.float32)


def one_shape(arrays: Mapping[Any, np.ndarray], what: str) -> tuple[int, ...]:
    """The shape that all arrays have; raises UserError when they differ."""
    shapes = {name: array.shape for name, array in arrays.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise UserError(f"{what} has different shapes: {first} {shapes[first]}, {name} {shape}.")
    return shapes[first]


def consecutive(steps: Collection[object], what: str) -> int:
    """How many steps there are; they must be 0, 1, 2, … without a gap."""
    known = {step for step in steps if type(step) is int}
    count = len(steps)
    if known != set(range(count)):
        raise UserError(f"{what} does not have the steps 0 to {count - 1}, each once.")
    return count


def slug(text: str, what: str) -> str:
    """`text`, which becomes part of a file's name; raises UserError for what could lead elsewhere."""
    if not _SLUG.fullmatch(text):
        raise UserError(f"{what} is '{text[:40]}', which cannot be part of a file's name.")
    return text
