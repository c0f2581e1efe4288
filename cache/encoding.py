"""Number formats: values <-> what is stored. bfloat16 is stored as its 16 bits in a uint16 (lossless)."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from cache.protocol import Dtype

STORED: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
}
# What stored values are cast to on their way to float32: numbers, or the bits that become its upper half.
WIDE: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float32),
    "bfloat16": np.dtype(np.uint32),
    "float32": np.dtype(np.float32),
}
LARGEST: dict[str, float] = {"float16": 65504.0, "bfloat16": 3.3895e38, "float32": 3.4028e38}
# Every value ever written is finite, so NaN marks what was never written. 0x7FC0 is bfloat16's quiet NaN.
FILL: dict[str, float | int] = {"float16": float("nan"), "bfloat16": 0x7FC0, "float32": float("nan")}

_NOT_FINITE = "the values contain {}; a cache holds finite numbers only, check the model's output"
# Exponent bits of the 16-bit formats (uint16 holds bfloat16's bits): numpy's isfinite is slow on float16.
_EXPONENT = {np.dtype(np.float16): np.uint16(0x7C00), np.dtype(np.uint16): np.uint16(0x7F80)}


def to_numpy(values: Any, dtype: Dtype) -> Shaped[np.ndarray, "..."]:
    """A numpy array or torch tensor (any device) as a numpy array that `encode` takes.

    bfloat16 tensors become their bits (uint16) when bfloat16 is stored, and exact float32 otherwise.

    Raises:
        ValueError: if it is neither, or holds no floating-point numbers.
    """
    if isinstance(values, np.ndarray):
        array = values
    else:
        import torch  # not at the top: reading a cache must not wait for torch

        if not isinstance(values, torch.Tensor):
            raise ValueError(f"must be a numpy array or a torch tensor, not {type(values).__name__}")
        tensor = values.detach().cpu()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.uint16) if dtype == "bfloat16" else tensor.float()
        array = tensor.numpy()
    is_bits = dtype == "bfloat16" and array.dtype == np.uint16
    if array.dtype.kind != "f" and not is_bits:
        raise ValueError(f"must hold floating-point numbers, not {array.dtype}")
    return array


def encode(values: Shaped[np.ndarray, "..."], dtype: Dtype) -> Shaped[np.ndarray, "..."]:
    """Values in the stored format, rounded to nearest, ties to even; uint16 is taken as bfloat16's bits.

    Raises:
        ValueError: for NaN, infinity, and what the format cannot hold.
    """
    if values.dtype == np.uint16:
        if not _is_finite(values):
            raise ValueError(_NOT_FINITE.format("NaN or infinity"))
        return values.astype(STORED["bfloat16"], copy=False)
    if not _is_finite(values):
        raise ValueError(_NOT_FINITE.format("NaN" if np.isnan(values).any() else "infinity"))
    with np.errstate(over="ignore"):
        rounded = values.astype(STORED["float16" if dtype == "float16" else "float32"], copy=False)
    stored = _bfloat16_bits(rounded) if dtype == "bfloat16" else rounded
    if stored is not values and not _is_finite(stored):
        wider = "bfloat16 or float32" if dtype == "float16" else "a smaller scale"
        raise ValueError(
            f"a value of magnitude {float(np.abs(values).max()):.4g} does not fit {dtype}, "
            f"whose largest is {LARGEST[dtype]:.5g}; plan {wider} instead"
        )
    return stored


def decode(stored: Shaped[np.ndarray, "..."], dtype: Dtype) -> Float[np.ndarray, "..."]:
    """Stored values as float32, exactly; values already cast to `WIDE[dtype]` are reused, not copied."""
    wide = stored.astype(WIDE[dtype], copy=False)
    if dtype == "bfloat16":
        np.left_shift(wide, np.uint32(16), out=wide)
    return wide.view(np.float32)


def _bfloat16_bits(values: Float[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Upper 16 bits of finite float32 values, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + half) >> np.uint32(16)).astype(STORED["bfloat16"])


def _is_finite(values: Shaped[np.ndarray, "..."]) -> bool:
    """Whether no value is NaN or infinite: those have all bits of their exponent set."""
    if values.dtype not in _EXPONENT:
        return bool(np.isfinite(values).all())
    magnitudes = values.view(np.uint16) & np.uint16(0x7FFF)
    return bool(magnitudes.max(initial=0) < _EXPONENT[values.dtype])
