"""Tolerances for comparing computations that are equal up to rounding; the only place that defines them.

Two values have the same bits only if exactly the same computation was repeated: the same inputs at the same positions
in a batch of the same size, with the same number of threads. At a different position or batch size, sums may be
computed in a different order, depending on the processor.

Measured differences, relative to the largest value: 5e-16 for one matrix product and 1e-14 for a whole guided run in
float64; 2e-6 for a whole guided run in float32. A wrong row, mask, position or step changes a float64 run by at least
1e-9. Half precision rounds once more at the end, by one unit in the last place.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

Values = torch.Tensor | ArrayLike

FLOAT64 = 1e-12
FLOAT32 = 1e-5
FLOAT16 = 2e-3
BFLOAT16 = 2e-2
AUDIO_STEP = 2**-15
"""Distance of two neighbouring values of 16-bit audio: samples that are equal up to rounding may be this far apart."""
OPTIMISED = 1e-4
"""For weights of a logistic regression, whose solver stops at a gradient that depends on the starting point."""
SCORE = 1e-4
"""For the scores of clips whose audio is equal up to rounding."""
_TOLERANCES = {
    torch.float64: FLOAT64,
    torch.float32: FLOAT32,
    torch.float16: FLOAT16,
    torch.bfloat16: BFLOAT16,
}


def difference(actual: Values, expected: Values) -> float:
    """Largest absolute difference, relative to the largest value of `expected`; NaN if either contains NaN."""
    one, other = _wide(actual), _wide(expected)
    assert one.shape == other.shape, f"shapes {one.shape} and {other.shape}"
    apart = float(np.abs(one - other).max(initial=0.0))
    size = float(np.abs(other).max(initial=0.0))
    return apart / size if apart and size else apart


def tolerance(*values: Values) -> float:
    """The tolerance for the narrowest dtype of these values."""
    return max(_TOLERANCES[_tensor(value).dtype] for value in values)


def assert_close(actual: Values, expected: Values, case: object = "") -> None:
    """Check that values are equal up to rounding, relative to the largest of `expected`; `case` names them."""
    apart, allowed = difference(actual, expected), tolerance(actual, expected)
    assert apart <= allowed, (
        f"{case} {apart:.2g} apart, relative to the largest value; {allowed:.2g} is allowed"
    )


def _wide(values: Values) -> np.ndarray:
    return _tensor(values).detach().cpu().double().numpy()


def _tensor(values: Values) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
