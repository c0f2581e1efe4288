"""How far apart two values may be that are equal on paper: the one place for tolerances between computations.

A value has the same bits twice only where the very same computation was done twice: same inputs at the same places of a
batch of the same size, with the same number of threads. At another place, in a batch of another size, or in another
order of summation a processor may add up in another order, and which ones do differs from processor to processor.

Measured, relative to the largest value: 5e-16 for one matrix product and 1e-14 for a whole guided run in float64; 2e-6
for a whole guided run in float32. A wrong row, mask, position or step moves a float64 run by 1e-9 and more.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

FLOAT64 = 1e-12
FLOAT32 = 1e-5


def difference(actual: torch.Tensor | ArrayLike, expected: torch.Tensor | ArrayLike) -> float:
    """Largest absolute difference, relative to the largest finite value of `expected`; NaN where one of them is NaN."""
    actual, expected = _wide(actual), _wide(expected)
    assert actual.shape == expected.shape, f"shapes {actual.shape} and {expected.shape}"
    apart = float(np.abs(actual - expected).max(initial=0.0))
    size = float(np.abs(expected).max(initial=0.0))
    return apart / size if apart and size else apart


def tolerance(*values: torch.Tensor | ArrayLike) -> float:
    """What rounding may do to values as wide as the narrowest of these."""
    return FLOAT64 if all(_dtype(value) == np.float64 for value in values) else FLOAT32


def assert_close(
    actual: torch.Tensor | ArrayLike, expected: torch.Tensor | ArrayLike, case: object = ""
) -> None:
    """Values are equal but for rounding, relative to the largest of `expected`; `case` says which ones they are."""
    apart, allowed = difference(actual, expected), tolerance(actual, expected)
    assert apart <= allowed, (
        f"{case} {apart:.2g} apart, relative to the largest value; {allowed:.2g} is allowed"
    )


def _wide(value: torch.Tensor | ArrayLike) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64)


def _dtype(value: torch.Tensor | ArrayLike) -> np.dtype:
    if isinstance(value, torch.Tensor):
        return np.dtype(np.float64 if value.dtype == torch.float64 else np.float32)
    return np.asarray(value).dtype
