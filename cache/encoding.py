"""Decode stored number formats to float32. bfloat16 is stored as its 16 bits in a uint16 (lossless)."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from cache.protocol import Dtype

STORED: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
}
# All written values are finite, so NaN marks values that were never written. 0x7FC0 is bfloat16's quiet NaN.
FILL: dict[str, float | int] = {"float16": float("nan"), "bfloat16": 0x7FC0, "float32": float("nan")}


def decode(stored: Shaped[np.ndarray, "..."], dtype: Dtype) -> Float[np.ndarray, "..."]:
    """Convert stored values to float32 exactly."""
    if dtype == "bfloat16":
        wide = stored.astype(np.uint32)
        np.left_shift(wide, np.uint32(16), out=wide)
        return wide.view(np.float32)
    return stored.astype(np.float32, copy=False)
