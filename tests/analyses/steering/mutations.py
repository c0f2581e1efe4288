"""Mutants of files: damaged bytes, and entries and arrays of other kinds and sizes."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

DEEP = json.loads("[" * 60 + "]" * 60)
VALUES: list[Any] = [
    None, True, "", "a\nb", "\x1b[2J", "x" * 3000, "ab", 0, -1, 1, 2, 7, 0.5, -0.0, 1e-300, 1e308, 10**30, float("nan"),
    float("-inf"), [], {}, [0], [1.0, 0.5], ["cond"], {"a": 1}, [None], [[]], DEEP, "cond", "tf0.cross_attn",
]  # fmt: skip
"""What entries are replaced by."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return bytes of which some are changed, missing, zero or repeated."""
    span = len(content) if draw.random() < 0.5 else min(len(content), 2000)  # the header is in front
    start = draw.randrange(span)
    if draw.random() < 0.1:
        return content[:start]
    end = start + draw.choice((1, 1, 4, 100))
    changed = bytes(draw.randrange(256) for _ in content[start:end])
    other = draw.choice([changed, b"", bytes(len(changed)), content[start:end] * 2])
    return content[:start] + other + content[end:]


def changed_entry(document: Any, draw: random.Random) -> Any:
    """Return a document of which one entry, at any depth, is replaced, missing, or has another name."""
    made = copy.deepcopy(document)
    holder, key = draw.choice(list(_places(made)))
    how = draw.random()
    if how < 0.75:
        holder[key] = copy.deepcopy(draw.choice(VALUES))
    elif how < 0.9:
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw.choice(["", "x", "0", "tf9.cross_attn"])] = holder.pop(key)
    else:
        holder.append(holder[key])
    return made


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def changed_array(arrays: Mapping[str, np.ndarray], draw: random.Random) -> dict[str, np.ndarray]:
    """Return arrays of which one has other numbers, another dtype, shape or name, or is missing."""
    made = {name: array.copy() for name, array in arrays.items()}
    name = draw.choice(list(made))
    array = made.pop(name)
    doubled = np.concatenate([array] * 2, axis=-1) if array.ndim else array
    dtype = draw.choice(["i4", "u1", "?", "f2", "f8", "i8"])
    other: list[Callable[[], np.ndarray]] = [
        lambda: array * np.nan,
        lambda: array.astype("f8") * 1e300 * 1e300,
        lambda: array.astype("f8") * 1e300,
        lambda: np.full(array.shape, 1e38, "f4"),
        lambda: array.astype(dtype),
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: array[:0] if array.ndim else array,
        lambda: array[..., :1],
        lambda: np.array(1.0, "f4"),
        lambda: doubled,
        lambda: array * 0,
        lambda: np.zeros((1,) * 8, array.dtype),
    ]
    how = draw.random()
    if how < 0.85:
        with np.errstate(all="ignore"):
            made[name] = np.ascontiguousarray(draw.choice(other)())
    elif how < 0.95:
        made[draw.choice(["", "x", "direction.tf0.mlp", "reliability.x"])] = array
    return made
