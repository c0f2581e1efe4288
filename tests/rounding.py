"""A pytest plugin that simulates different rounding: `pytest -p tests.rounding`.

Every matrix product and convolution is off by up to two units in the last place, in a pattern that depends only on the
shape of the result. A repeated computation has the same bits, but a row has different bits at a different position in
its batch or in a batch of a different size, as on some processors.
"""

from functools import cache, wraps
from typing import Any

import torch
from torch import nn

UNITS = 2
ROUNDED = (
    (nn.Linear, "forward"),
    (nn.Conv1d, "forward"),
    (nn.Conv2d, "forward"),
    (nn.ConvTranspose1d, "forward"),
    (torch, "bmm"),
    (torch, "matmul"),
)


@cache
@torch.inference_mode(False)  # also used outside inference mode
def _pattern(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    draw = torch.Generator().manual_seed(hash(tuple(shape)) % 2**32)
    units = torch.randint(-UNITS, UNITS + 1, shape, generator=draw)
    return (1 + units.double() * torch.finfo(dtype).eps).to(dtype)


def _rounded(function: Any) -> Any:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        out = function(*args, **kwargs)
        if type(out) is not torch.Tensor or out.device.type != "cpu" or not out.is_floating_point():
            return out
        return out * _pattern(out.shape, out.dtype)

    return call


def pytest_configure() -> None:
    """Install the rounding before any model is made."""
    for owner, name in ROUNDED:
        setattr(owner, name, _rounded(getattr(owner, name)))
