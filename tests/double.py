"""Float64 throughout, including where diffusers and transformers use float32 whatever the model's dtype.

Norms and ACE-Step's rotary embedding use it. There, rows that differ in the last digit of float64 would occasionally be
rounded to different float32 numbers, 1e-7 apart, depending on the processor.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import diffusers.models.transformers.ace_step_transformer as ace_step
import torch
from diffusers.models import normalization
from torch.overrides import TorchFunctionMode
from transformers.models.qwen3 import modeling_qwen3 as qwen3
from transformers.models.t5 import modeling_t5 as t5

THROUGH_FLOAT32 = (
    (normalization.RMSNorm, "forward"),
    (ace_step, "apply_rotary_emb"),
    (qwen3.Qwen3RMSNorm, "forward"),
    (t5.T5LayerNorm, "forward"),
)


class Smooth(TorchFunctionMode):
    """Keep float64 where float32 is requested."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        asked = func is torch.Tensor.float or (
            func is torch.Tensor.to and (args[1:] == (torch.float32,) or kwargs == {"dtype": torch.float32})
        )
        if asked and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))


def compute_in_double() -> None:
    """Make the functions above compute float64 in float64."""
    for owner, name in THROUGH_FLOAT32:
        setattr(owner, name, _smooth(getattr(owner, name)))


def _smooth(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(each, torch.Tensor) and each.dtype == torch.float64 for each in args):
            return function(*args, **kwargs)  # the mode would take 7 % of a model's time
        with Smooth():
            return function(*args, **kwargs)

    return call
