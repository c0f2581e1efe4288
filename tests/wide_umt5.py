"""UMT5 in float64 throughout; transformers' own implementation uses float32 in places, whatever its weights are."""

from types import ModuleType
from typing import Any

import pytest
import torch
import transformers.models.umt5.modeling_umt5 as umt5
from transformers import UMT5EncoderModel


class _WideTorch(ModuleType):
    """torch with float64 in place of float32."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def widen(text_encoder: UMT5EncoderModel) -> None:
    """Make an encoder with float64 weights compute only in float64."""
    plain = text_encoder.forward

    def forward(*args: Any, **inputs: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(umt5, "torch", _WideTorch("torch"))
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            return plain(*args, **inputs)

    text_encoder.forward = forward
