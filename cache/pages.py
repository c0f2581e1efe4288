"""Reading any positions of a zarr array by whole runs of pages."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int, Shaped

Positions = Sequence[int] | Int[np.ndarray, " _"]


def read_positions(
    array: "zarr.Array[Any]", positions: Sequence[Positions], dtype: np.dtype[Any]
) -> Shaped[np.ndarray, "clip step pass token channel"]:
    """The values at some positions of each of the five dimensions, in the order given, cast to a dtype.

    Clips, steps and passes are read in runs that follow each other on disk; tokens and channels are picked
    from whole stretches in memory. zarr's own selection by index lists costs 100 times as much on pages of
    this size.
    """
    lists = [np.asarray(given, dtype=np.int64) for given in positions]
    shape = tuple(len(given) for given in lists)
    if 0 in shape:
        return np.empty(shape, dtype)
    blocks = list(product(*(_runs(given) for given in lists[:3])))
    if len(blocks) == 1:
        return _read_block(array, blocks[0], lists).astype(dtype, copy=False)
    values = np.empty(shape, dtype)
    for runs in blocks:
        values[tuple(target for target, _ in runs)] = _read_block(array, runs, lists)
    return values


def _read_block(
    array: "zarr.Array[Any]", runs: tuple[tuple[slice, slice], ...], lists: list[Int[np.ndarray, " _"]]
) -> Shaped[np.ndarray, "clip step pass token channel"]:
    """The wanted tokens and channels of one run of clips, of steps and of passes."""
    tokens, channels = lists[3:]
    source = tuple(stretch for _, stretch in runs)
    block = np.asarray(array[(*source, _stretch(tokens), _stretch(channels))])
    return _pick(_pick(block, 3, tokens), 4, channels)


def _stretch(positions: Int[np.ndarray, " _"]) -> slice:
    """The smallest slice that holds all positions."""
    return slice(int(positions.min()), int(positions.max()) + 1)


def _pick(
    block: Shaped[np.ndarray, "..."], axis: int, positions: Int[np.ndarray, " _"]
) -> Shaped[np.ndarray, "..."]:
    """The positions along an axis of a block that has the stretch of them; a copy only where it must be."""
    if len(_runs(positions)) == 1:
        return block
    return np.take(block, positions - positions.min(), axis=axis)


def _runs(positions: Int[np.ndarray, " _"]) -> list[tuple[slice, slice]]:
    """Consecutive positions as (where in the list, where in the array) slices."""
    ends = [*(np.flatnonzero(np.diff(positions) != 1) + 1).tolist(), len(positions)]
    starts = [0, *ends[:-1]]
    return [(slice(i, j), _stretch(positions[i:j])) for i, j in zip(starts, ends, strict=True)]
