"""A lazy array for xarray: reads only what is indexed from disk."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from xarray.backends import BackendArray
from xarray.core import indexing

from cache.chunks import Positions
from cache.protocol import Shape

Read = Callable[[Sequence[Positions]], Float[np.ndarray, "..."]]


class _OnDisk(BackendArray):
    """xarray's backend array: indexing reads from disk."""

    def __init__(self, shape: Shape, read: Read) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.float32)
        self._read = read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple[Any, ...]) -> Float[np.ndarray, "..."]:
        """Read the positions of a key of integers (whose dimensions are dropped), slices and arrays."""
        positions = [
            np.atleast_1d(np.arange(length)[item]) for length, item in zip(self.shape, key, strict=True)
        ]
        dropped = tuple(axis for axis, item in enumerate(key) if isinstance(item, int | np.integer))
        return self._read(positions).squeeze(axis=dropped)


def lazy_array(shape: Shape, read: Read) -> indexing.LazilyIndexedArray:
    """Make a float32 array whose values are read by `read(positions)` when they are needed.

    Args:
        shape: shape of the whole array.
        read: takes the positions along each dimension and returns the values there.
    """
    return indexing.LazilyIndexedArray(_OnDisk(shape, read))
