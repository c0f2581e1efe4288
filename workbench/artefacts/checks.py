"""Checks that all kinds of artefacts share."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from cache.wording import quoted

_SLUG = re.compile(r"[A-Za-z0-9][\w.+-]{0,79}")


class MemoryBudget:
    """Limits how much memory the arrays of one file may take.

    A pickle can refer to the same bytes any number of times. An honest file refers to most of them once, so its arrays
    together are not much larger than the file.
    """

    _BASE_BYTES = 2**26
    _FILE_FACTOR = 4  # half precision becomes single, and a few arrays may be shared
    _BYTES_PER_ARRAY = 256

    def __init__(self, file: Path) -> None:
        self.file = file
        self.left = self._FILE_FACTOR * file.stat().st_size + self._BASE_BYTES

    def charge(self, value: object) -> None:
        """Charge an array to the budget before it is converted or copied; raise UserError when the budget is spent."""
        self.left -= self._BYTES_PER_ARRAY + (value.size * 4 if isinstance(value, np.ndarray) else 0)
        if self.left < 0:
            raise UserError(
                f"{self.file} refers to the same numbers so often that they would fill the memory. It was not loaded."
            )


def mapping(value: object, what: str) -> Mapping[Any, Any]:
    """Return `value`; raise UserError unless it is a non-empty dict."""
    if not isinstance(value, dict) or not value:
        raise UserError(f"{what} must be a non-empty dict.")
    return value


def vector(value: object, what: str) -> Float[np.ndarray, " channel"]:
    """Return `value` as float32; raise UserError unless it is a non-empty one-dimensional array of finite floats."""
    return numbers(value, 1, what)


def table(value: object, what: str) -> Float[np.ndarray, "row column"]:
    """Return `value` as float32; raise UserError unless it is a non-empty two-dimensional array of finite floats."""
    return numbers(value, 2, what)


def numbers(value: object, axes: int, what: str) -> Float[np.ndarray, "..."]:
    """Return `value` as float32; raise UserError unless it is a non-empty array of finite floats with `axes` axes."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise UserError(f"{what} must be an array of floating-point numbers.")
    if value.ndim != axes or value.size == 0:
        raise UserError(f"{what} must be a non-empty array with {axes} axes; its shape is {value.shape}.")
    if not np.isfinite(value).all():
        raise UserError(f"{what} must have finite numbers only; it has NaN or infinity.")
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(value, dtype=np.float32)
    if np.isinf(single).any():
        raise UserError(f"{what} must have numbers of single precision; it has larger ones.")
    return single


def one_shape(arrays: Mapping[Any, np.ndarray], what: str) -> tuple[int, ...]:
    """Return the shape that all arrays share; raise UserError when they differ."""
    shapes = {name: array.shape for name, array in arrays.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise UserError(
                f"{what} must have one shape throughout; {first} is {shapes[first]}, {name} is {shape}."
            )
    return shapes[first]


def consecutive(steps: Collection[object], what: str) -> int:
    """Return the number of steps; raise UserError unless they are 0, 1, 2, … without a gap."""
    known = {step for step in steps if type(step) is int}
    count = len(steps)
    if known != set(range(count)):
        raise UserError(f"{what} must have each of the steps 0 to {count - 1} exactly once.")
    return count


def declared(value: object, actual: int, what: str) -> None:
    """Raise UserError unless a number that settings declare is the actual one; `what` says what it counts."""
    if type(value) is not int or value != actual:
        raise UserError(f"{what} is {actual}, but its settings say {shown(value)}.")


def shown(value: object) -> str:
    """Return any value of a file in a form for messages: one line, short and printable."""
    if isinstance(value, str):
        return quoted(value)
    return str(value)[:60] if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def slug(text: str, what: str) -> str:
    """Return `text`, which becomes part of a file name; raise UserError if it could be a path."""
    if not _SLUG.fullmatch(text):
        raise UserError(f"{what} is {quoted(text)}, which cannot be part of a file name.")
    return text
