"""Transcoders: from one site's activations to another's (Dunefsky et al. 2024, arXiv 2406.11944).

The decoder bias belongs to the site that is reconstructed, so it is not subtracted from the input.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from workbench.sae.base import SAE, SAEConfig
from workbench.sae.batch_topk import BatchTopKObjective
from workbench.sae.jumprelu import JumpReLUSAE
from workbench.sae.settings import BatchTopKTranscoderSettings, TopKTranscoderSettings
from workbench.sae.topk import TopKConfig, TopKObjective, check_k, keep_largest

_FIXED = {**SAEConfig.FIXED, "apply_b_dec_to_input": False}


class TopKTranscoderConfig(TopKConfig):
    """Sizes of a TopK transcoder; `metadata` names the site that it reconstructs as `hook_name_out`."""

    FIXED: ClassVar[Mapping[str, Any]] = {**TopKConfig.FIXED, **_FIXED}

    architecture: Literal["topk_transcoder"] = "topk_transcoder"  # type: ignore[assignment]
    channels_out: int = Field(ge=1, alias="d_out")

    @property
    def d_out(self) -> int:
        """Channels of the reconstruction."""
        return self.channels_out


class JumpReLUTranscoderConfig(SAEConfig):
    """Sizes of a JumpReLU transcoder; `metadata` names the site that it reconstructs as `hook_name_out`."""

    FIXED: ClassVar[Mapping[str, Any]] = _FIXED

    architecture: Literal["jumprelu_transcoder"] = "jumprelu_transcoder"
    channels_out: int = Field(ge=1, alias="d_out")

    @property
    def d_out(self) -> int:
        """Channels of the reconstruction."""
        return self.channels_out


class Transcoder(SAE):
    """SAE with `pre = x @ W_enc + b_enc`, whose reconstruction has the channels of another site."""

    @property
    def input_shift(self) -> None:
        """What is subtracted from the input: nothing."""
        return


class TopKTranscoder(Transcoder):
    """The k largest features of each row are active."""

    SELECTS: ClassVar[bool] = True

    config: TopKTranscoderConfig

    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Keep the k largest pre-activations of each row, if positive; set all others to 0."""
        return keep_largest(torch.relu(pre), self.config.k)


class JumpReLUTranscoder(Transcoder, JumpReLUSAE):
    """Features above their thresholds are active."""


class TopKTranscoderObjective(TopKTranscoderSettings, TopKObjective):
    """TopK's objective for another site's activations."""

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> TopKTranscoder:
        """Return a TopK transcoder with all weights zero."""
        check_k(self.k, d_sae)
        sizes: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "d_out": self.d_out or d_in}
        return TopKTranscoder(TopKTranscoderConfig(**sizes, k=self.k, metadata=dict(metadata)))


class BatchTopKTranscoderObjective(BatchTopKTranscoderSettings, BatchTopKObjective):
    """BatchTopK's objective for another site's activations."""

    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> JumpReLUTranscoder:
        """Return a JumpReLU transcoder with all weights zero."""
        check_k(self.k, d_sae)
        sizes: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "d_out": self.d_out or d_in}
        of_training = {"training_architecture": self.architecture, "training_k": self.k}
        return JumpReLUTranscoder(JumpReLUTranscoderConfig(**sizes, metadata={**metadata, **of_training}))
