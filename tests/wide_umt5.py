"""UMT5 in float64 throughout: transformers' own goes through float32 in places, whatever its weights are."""

from types import ModuleType
from typing import Any

import pytest
import torch
import transformers.models.umt5.modeling_umt5 as umt5
from transformers import UMT5EncoderModel


class _WideTorch(ModuleType):
    """torch, but what it calls float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def widen(text_encoder: UMT5EncoderModel) -> None:
    """Let an encoder with float64 weights compute in float64 only."""
    plain = text_encoder.forward

    def forward(*args: Any, **inputs: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(umt5, "torch", _WideTorch("torch"))
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            return plain(*args, **inputs)

    text_encoder.forward = forward
