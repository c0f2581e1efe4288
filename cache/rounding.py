"""Casting values to the stored format, and measuring what the cast loses; on the device where the values are."""

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
# Sums of squares differ in their last bits with the number of threads; what is recorded must not.
_DIGITS = 3


class Rounding:
    """What casting values lost, over all that were added; kept on their device until it is asked for."""

    def __init__(self) -> None:
        self._maxima: torch.Tensor | None = None
        self._sums: torch.Tensor | None = None

    def add(self, values: torch.Tensor, stored: torch.Tensor) -> None:
        """Take in values (of any shape) and what they were cast to."""
        magnitude = _largest(values)
        nothing = torch.zeros_like(magnitude)
        error = square = error_square = nothing
        if values.dtype != stored.dtype:
            wide = values if values.dtype == torch.float64 else values.float()
            difference = stored.to(wide.dtype, copy=True).sub_(wide)  # a copy: `stored` is yet to be written
            error = _largest(difference)
            square, error_square = _square(wide, magnitude), _square(difference, error)
        maxima, sums = torch.stack([magnitude, error]), torch.stack([square, error_square])
        self._maxima = maxima if self._maxima is None else torch.maximum(self._maxima, maxima)
        self._sums = sums if self._sums is None else self._sums + sums

    def figures(self) -> dict[str, float]:
        """`largest` magnitude before the cast, `max_error` (largest absolute difference) and `rms_error`.

        `rms_error` is relative: the root of the summed squared differences over the summed squares. All have three
        significant digits.
        """
        if self._maxima is None or self._sums is None:
            return {"largest": 0.0, "max_error": 0.0, "rms_error": 0.0}
        largest, max_error = self._maxima.tolist()
        square, error_square = self._sums.tolist()
        rms_error = math.sqrt(error_square / square) if square else 0.0
        figures = {"largest": largest, "max_error": max_error, "rms_error": rms_error}
        return {name: float(f"{value:.{_DIGITS}g}") for name, value in figures.items()}

    def check(self, dtype: Dtype) -> None:
        """Refuse what cannot be stored in a format. (Rounding is monotone, so the largest value speaks for all.)

        Raises:
            ValueError: for NaN, infinity, and a value too large for the format.
        """
        if self._maxima is None:
            return
        largest = self._maxima[0].cpu()
        if bool(torch.isfinite(largest.to(TORCH[dtype]))):
            return
        if bool(torch.isfinite(largest)):
            wider = "check the model's output"
            if dtype == "float16":
                wider = "plan bfloat16 or float32 instead (`workbench trace --dtype`, or `--site-dtype` for one site)"
            raise ValueError(
                f"a value of magnitude {float(largest):.4g} does not fit {dtype}, "
                f"whose largest is {torch.finfo(TORCH[dtype]).max:.5g}; {wider}"
            )
        found = "NaN" if bool(largest.isnan()) else "infinity"
        raise ValueError(
            f"the values contain {found}; a cache holds finite numbers only, check the model's output"
        )


def to_tensor(values: Any, dtype: Dtype) -> torch.Tensor:
    """A numpy array or torch tensor as a tensor of floating-point numbers, without a copy.

    A numpy uint16 array is taken as the bits of bfloat16 where that is stored.

    Raises:
        ValueError: if it is neither, or holds no floating-point numbers.
    """
    if isinstance(values, np.ndarray):
        try:
            tensor = torch.from_numpy(values)
        except TypeError as error:
            raise ValueError(f"must hold floating-point numbers, not {values.dtype}") from error
        if dtype == "bfloat16" and tensor.dtype == torch.uint16:
            tensor = tensor.view(torch.bfloat16)
    elif isinstance(values, torch.Tensor):
        tensor = values.detach()
    else:
        raise ValueError(f"must be a numpy array or a torch tensor, not {type(values).__name__}")
    if not tensor.dtype.is_floating_point:
        raise ValueError(f"must hold floating-point numbers, not {values.dtype}")
    return tensor


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Largest magnitude as float64; NaN if there is one."""
    return torch.stack(torch.aminmax(values)).abs().amax().double()


def _square(values: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Sum of squares as float64: rows in the values' own precision, which is fast, and their squares in float64.

    Values so large or small that their squares leave the range of float32 are scaled first. (So are all on a GPU,
    where that costs less than to wait for `largest`.)
    """
    if values.device.type == "cpu" and 1e-10 < float(largest) < 1e15:
        return torch.linalg.vector_norm(values, dim=-1).double().square().sum()
    scale = torch.where(largest > 0, largest, 1.0)
    return (
        torch.linalg.vector_norm(values / scale.to(values.dtype), dim=-1).double().square().sum() * scale**2
    )
