"""Cast values to the stored format and measure the rounding error, on the device of the values."""

import math
from typing import Any

import numpy as np
import torch

from cache.protocol import Dtype

TORCH: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
# Sums of squares differ in their last bits with the number of threads; recorded values must not.
_DIGITS = 3


class Rounding:
    """Accumulates the rounding error of casts, on the device of the values."""

    def __init__(self) -> None:
        self._maxima: torch.Tensor | None = None
        self._sums: torch.Tensor | None = None

    def add(self, values: torch.Tensor, stored: torch.Tensor) -> None:
        """Add values (of any shape) and what they were cast to."""
        magnitude = _largest(values)
        nothing = torch.zeros_like(magnitude)
        error = square = error_square = nothing
        if values.dtype != stored.dtype:
            wide = values if values.dtype == torch.float64 else values.float()
            difference = stored.to(wide.dtype, copy=True).sub_(
                wide
            )  # a copy, because `stored` is written later
            error = _largest(difference)
            square, error_square = _square(wide, magnitude), _square(difference, error)
        maxima, sums = torch.stack([magnitude, error]), torch.stack([square, error_square])
        self._maxima = maxima if self._maxima is None else torch.maximum(self._maxima, maxima)
        self._sums = sums if self._sums is None else self._sums + sums

    def summary(self) -> dict[str, float]:
        """Return the `largest` magnitude before the cast, `max_error` (absolute) and `rms_error` (relative).

        `rms_error` is the root of the summed squared differences over the summed squares. All have three significant
        digits.
        """
        if self._maxima is None or self._sums is None:
            return {"largest": 0.0, "max_error": 0.0, "rms_error": 0.0}
        largest, max_error = self._maxima.tolist()
        square, error_square = self._sums.tolist()
        rms_error = math.sqrt(error_square / square) if square else 0.0
        errors = {"largest": largest, "max_error": max_error, "rms_error": rms_error}
        return {name: float(f"{value:.{_DIGITS}g}") for name, value in errors.items()}

    def check(self, dtype: Dtype) -> None:
        """Raise ValueError for NaN, infinity and values too large for a format.

        Rounding is monotone, so it suffices to check the largest value.
        """
        if self._maxima is None:
            return
        largest = self._maxima[0].cpu()
        if bool(torch.isfinite(largest.to(TORCH[dtype]))):
            return
        if bool(torch.isfinite(largest)):
            advice = "check the model's output"
            if dtype == "float16":
                advice = "plan bfloat16 or float32 instead (`workbench trace --dtype`, or `--site-dtype` for one site)"
            raise ValueError(
                f"a value of magnitude {float(largest):.4g} exceeds the largest of {dtype}, "
                f"{torch.finfo(TORCH[dtype]).max:.5g}; {advice}"
            )
        found = "NaN" if bool(largest.isnan()) else "infinity"
        raise ValueError(f"the values must be finite, but contain {found}; check the model's output")


def to_tensor(values: Any, dtype: Dtype) -> torch.Tensor:
    """Convert a numpy array or torch tensor of floating-point numbers to a tensor, without a copy.

    If `dtype` is bfloat16, a numpy uint16 array is interpreted as its bits.

    Raises:
        ValueError: if it is neither, or does not have floating-point numbers.
    """
    if isinstance(values, np.ndarray):
        try:
            tensor = torch.from_numpy(values)
        except TypeError as error:
            raise ValueError(f"must have floating-point numbers; got {values.dtype}") from error
        if dtype == "bfloat16" and tensor.dtype == torch.uint16:
            tensor = tensor.view(torch.bfloat16)
    elif isinstance(values, torch.Tensor):
        tensor = values.detach()
    else:
        raise ValueError(f"must be a numpy array or a torch tensor; got {type(values).__name__}")
    if not tensor.dtype.is_floating_point:
        raise ValueError(f"must have floating-point numbers; got {values.dtype}")
    return tensor


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude as float64; NaN if any value is NaN."""
    return torch.stack(torch.aminmax(values)).abs().amax().double()


def _square(values: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares as float64: row norms in the values' own precision for speed, their squares in float64.

    Values whose squares would leave the range of float32 are scaled first. (On a GPU all are, which is cheaper than
    waiting for `largest`.)
    """
    if values.device.type == "cpu" and 1e-10 < float(largest) < 1e15:
        return torch.linalg.vector_norm(values, dim=-1).double().square().sum()
    scale = torch.where(largest > 0, largest, 1.0)
    return (
        torch.linalg.vector_norm(values / scale.to(values.dtype), dim=-1).double().square().sum() * scale**2
    )
