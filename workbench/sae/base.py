"""What every sparse autoencoder is: sizes, weights, encoding and decoding, and what it is trained for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class SAEConfig(BaseModel):
    """Sizes of an SAE, and where its inputs come from; a subclass for each architecture adds its own settings.

    Those settings are numbers or text: a result has each as an attribute. `metadata` names the inputs: `hook_name` (the
    site), `pass_name`. `FIXED` are the entries of a SAELens configuration that have one possible value here: a folder
    with another value means other arithmetic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    FIXED: ClassVar[Mapping[str, Any]] = {
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }

    architecture: str
    d_in: int = Field(ge=1)
    d_sae: int = Field(ge=1)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that only this architecture has."""
        return self.model_dump(exclude=set(SAEConfig.model_fields))


class Encoding(NamedTuple):
    """Feature activations, and the values of either sign that they were made of."""

    acts: Float[Tensor, "*rows feature"]
    pre: Float[Tensor, "*rows feature"]


class SAE(nn.Module, ABC):
    """Sparse autoencoder: `z = activate((x - b_dec) @ W_enc + b_enc)`, `x_hat = z @ W_dec + b_dec`.

    Parameters have SAELens' names and axes: `W_enc` (channel, feature), `b_enc` (feature), `W_dec` (feature,
    channel), `b_dec` (channel). Without `weights` all are zeros.
    """

    config: SAEConfig
    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(self, config: SAEConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        shapes = self.shapes(config)
        # Compared before anything of that size is made: a configuration can say what it likes.
        if weights is not None and {name: tuple(value.shape) for name, value in weights.items()} != shapes:
            raise ValueError("the weights have other shapes than the configuration says")
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape) if weights is None else weights[name]))

    @classmethod
    def shapes(cls, config: SAEConfig) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter. An architecture with further parameters adds them."""
        return {
            "W_enc": (config.d_in, config.d_sae),
            "b_enc": (config.d_sae,),
            "W_dec": (config.d_sae, config.d_in),
            "b_dec": (config.d_in,),
        }

    @abstractmethod
    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Feature activations, none of them negative, from pre-activations."""

    def encode(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows feature"]:
        """Feature activations of `x`."""
        return self.encode_with_pre(x).acts

    def encode_with_pre(self, x: Float[Tensor, "*rows channel"]) -> Encoding:
        """The same with the pre-activations, which some objectives need."""
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        return Encoding(self.activate(pre), pre)

    def decode(self, acts: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows channel"]:
        """Reconstruction from feature activations."""
        return acts @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows channel"]:
        """Reconstruction of `x`."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def unscale(self, factor: float) -> None:
        """Turn an SAE of inputs multiplied by `factor` into the same SAE of the inputs as they are.

        With both biases divided by the factor, pre-activations and features are those of the scaled inputs divided by
        it. An architecture with a threshold divides that, too.
        """
        self.b_enc.div_(factor)
        self.b_dec.div_(factor)

    def extra_repr(self) -> str:
        """Sizes and settings, which `repr` shows."""
        sizes = {"width": self.config.d_in, "features": self.config.d_sae, **self.config.settings}
        return ", ".join(f"{name}={value}" for name, value in sizes.items())

    @property
    def device(self) -> torch.device:
        """Where its parameters lie."""
        return self.b_dec.device


class TrainingBatch(NamedTuple):
    """One batch of a training: the inputs, what the SAE made of them, and which features are dead."""

    x: Float[Tensor, "row channel"]
    encoding: Encoding
    x_hat: Float[Tensor, "row channel"]
    error: Float[Tensor, ""]  # mean squared error over rows and channels
    dead: Bool[Tensor, " feature"]  # silent for many steps


class Objective(BaseModel, ABC):
    """What an SAE of one architecture is trained for: the settings of it that can be chosen, and the loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: str

    @abstractmethod
    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> SAE:
        """An SAE of these settings, with zeros as weights."""

    @abstractmethod
    def loss(self, sae: SAE, batch: TrainingBatch) -> Float[Tensor, ""]:
        """What training makes small."""
