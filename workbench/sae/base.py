"""Base classes of sparse autoencoders: configuration, module and training objective."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from cache.errors import UserError
from cache.wording import quoted
from workbench.sae.sparse import Codes, Selection, encode


class SAEConfig(BaseModel):
    """Sizes of an SAE, and where its inputs come from; each architecture's subclass adds its own settings.

    Those settings are numbers or text, because a result stores each as an attribute. `metadata` names the inputs:
    `hook_name` (the site) and `pass_name`. `FIXED` lists the entries of a SAELens configuration that can have only one
    value here: a folder with another value needs arithmetic that is not implemented.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

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
        """Settings specific to this architecture."""
        return self.model_dump(exclude=set(SAEConfig.model_fields), by_alias=True)

    @property
    def trained_as(self) -> str:
        """The architecture that it was trained as, which may be kept as another (metadata `training_architecture`)."""
        given = self.metadata.get("training_architecture")
        return given if isinstance(given, str) else self.architecture

    @property
    def scaled_steps(self) -> tuple[int, ...]:
        """Denoising steps whose inputs were scaled each in its own way (metadata `scaled_steps`); empty if alike."""
        return tuple(self.metadata.get("scaled_steps", []))

    @field_validator("metadata")
    @classmethod
    def _has_steps(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        steps = metadata.get("scaled_steps", [])
        if not isinstance(steps, list) or any(type(step) is not int or step < 0 for step in steps):
            raise ValueError("scaled_steps must be a list of steps")
        return metadata

    def check_step(self, step: int) -> None:
        """Raise UserError if inputs were scaled per step, and this step was not one of them."""
        steps = self.scaled_steps
        if steps and step not in steps:
            raise UserError(
                f"The autoencoder was trained on steps {', '.join(map(str, steps))}; it cannot be used at step {step}."
            )

    @property
    def d_out(self) -> int:
        """Channels of the reconstruction; a transcoder reconstructs another site's."""
        return self.d_in


class SAE(nn.Module, ABC):
    """Sparse autoencoder: `z = activate((x - b_dec) @ W_enc + b_enc)`, `x_hat = z @ W_dec + b_dec`.

    Parameters have SAELens' names and axes: `W_enc` (channel, feature), `b_enc` (feature), `W_dec` (feature,
    channel), `b_dec` (channel). Without `weights`, all are zero.

    If inputs were scaled per step, as `(x - step_mean) * step_factor` with a row of `step_mean` (step, channel) and
    `step_factor` (step, 1) for each of `config.scaled_steps`, only the SAE that `at` returns for a step can be applied.
    """

    STORED_NAMES: ClassVar[Mapping[str, str]] = {}
    """Names that parameters have in files, where they differ."""
    SELECTS: ClassVar[bool] = False
    """Whether features are active by the size of their pre-activations: the largest, or those above a threshold."""

    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ()
    """Parameters that must be at least 0."""

    config: SAEConfig
    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(self, config: SAEConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        shapes = self.shapes(config)
        # Compared before anything of that size is allocated: a configuration may claim any size.
        if weights is not None:
            self._check_shapes({name: tuple(value.shape) for name, value in weights.items()}, shapes)
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape) if weights is None else weights[name]))

    def set_metadata(self, entry: str, value: Any) -> None:
        """Keep a value, which JSON can hold, with the configuration."""
        metadata = {**self.config.metadata, entry: value}
        self.config = self.config.model_copy(update={"metadata": metadata})

    @classmethod
    def shapes(cls, config: SAEConfig) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter. An architecture with further parameters adds them."""
        n_steps = len(config.scaled_steps)
        of_steps = {"step_mean": (n_steps, config.d_in), "step_factor": (n_steps, 1)}
        return {
            "W_enc": (config.d_in, config.d_sae),
            "b_enc": (config.d_sae,),
            "W_dec": (config.d_sae, config.d_out),
            "b_dec": (config.d_out,),
            **(of_steps if n_steps else {}),
        }

    @classmethod
    def _check_shapes(cls, given: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> None:
        """Raise ValueError for the first weight that is missing, has another shape, or does not belong here."""
        for name in [*expected, *given]:
            stored = cls.STORED_NAMES.get(name, name)
            if name not in given:
                raise ValueError(f"{stored} is missing")
            if name not in expected:
                raise ValueError(f"{quoted(stored)} is not a weight of this kind")
            if given[name] != expected[name]:
                raise ValueError(
                    f"{stored} has the shape {_shape(given[name])}, but its configuration says "
                    f"{_shape(expected[name])}"
                )

    @abstractmethod
    def activate(self, pre: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows feature"]:
        """Return the non-negative feature activations for the given pre-activations."""

    def encode(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows feature"]:
        """Return the feature activations of `x`."""
        return self.activate(self.pre_activations(x))

    def pre_activations(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows feature"]:
        """Return what `activate` is applied to."""
        return self.pre_activations_of(x, slice(None))

    def pre_activations_of(
        self, x: Float[Tensor, "*rows channel"], features: Int64[Tensor, " some"] | slice
    ) -> Float[Tensor, "*rows some"]:
        """Return the pre-activations of some of the features; raise UserError if inputs were scaled per step."""
        if self.config.scaled_steps:
            raise UserError("The autoencoder's inputs were scaled per step: use `sae.at(step)`.")
        shifted = x if self.input_shift is None else x - self.input_shift
        # Features as rows: the gradient of a choice of columns is slow.
        return shifted @ self.W_enc.T[features].T + self.b_enc[features]

    def active_codes(self, x: Float[Tensor, "row channel"], select: Selection) -> Codes:
        """Return the pre-activations that `select` chooses, as codes with sparse gradients."""
        return encode(x, self.input_shift, self.W_enc, self.b_enc, select)

    @property
    def input_shift(self) -> Float[Tensor, " channel"] | None:
        """What is subtracted from the input: `b_dec`."""
        return self.b_dec

    def decode(self, acts: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows channel_out"]:
        """Return the reconstruction from feature activations."""
        return acts @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows channel_out"]:
        """Return the reconstruction of `x`."""
        return self.decode(self.encode(x))

    def at(self, step: int) -> "SAE":
        """Return the SAE for the activations of a denoising step; itself, unless inputs were scaled per step.

        Raises:
            UserError: if inputs were scaled per step, and this step was not one of them.
        """
        steps = self.config.scaled_steps
        if not steps:
            return self
        self.config.check_step(step)
        others = {name: value for name, value in self.config.metadata.items() if name != "scaled_steps"}
        # The matrices are shared: the scale of a step changes only the biases.
        weights = {
            name: value.detach() if name in ("W_enc", "W_dec") else value.detach().clone()
            for name, value in self.state_dict().items()
            if name not in ("step_mean", "step_factor")
        }
        sae = type(self)(self.config.model_copy(update={"metadata": others}), weights)
        place = steps.index(step)
        sae.unscale(self.get_parameter("step_factor")[place, 0].item())
        sae.shift(self.get_parameter("step_mean")[place].detach())
        return sae

    @torch.no_grad()
    def shift(self, mean: Float[Tensor, " channel"]) -> None:
        """Turn an SAE trained on inputs from which `mean` was subtracted into an equivalent one for the inputs."""
        if self.input_shift is None:
            self.b_enc.sub_(mean @ self.W_enc)
        else:
            self.b_dec.add_(mean)

    @torch.no_grad()
    def unscale(self, factor: float) -> None:
        """Turn an SAE trained on inputs multiplied by `factor` into an equivalent SAE for the unscaled inputs.

        Dividing both biases by `factor` divides pre-activations and features by it, too. An architecture with a
        threshold must also divide the threshold.
        """
        self.b_enc.div_(factor)
        self.b_dec.div_(factor)

    @torch.no_grad()
    def scale_features(self, factor: Float[Tensor, " feature"]) -> None:
        """Multiply the features' activations by positive factors, and divide their decoder rows by them.

        The reconstruction stays the same, unless the k largest are chosen and the factors differ. An architecture with
        a threshold must also multiply the threshold.
        """
        self.W_enc.mul_(factor)
        self.b_enc.mul_(factor)
        self.W_dec.div_(factor[:, None])

    @torch.no_grad()
    def shift_input(self, shift: Float[Tensor, " channel"]) -> None:
        """Turn the SAE into one whose features for `x` are those that it had for `x + shift`."""
        self.b_enc.add_((shift.double() @ self.W_enc.double()).to(self.b_enc.dtype))

    def extra_repr(self) -> str:
        """Sizes and settings for `repr`."""
        sizes = {"width": self.config.d_in, "features": self.config.d_sae, **self.config.settings}
        return ", ".join(f"{name}={value}" for name, value in sizes.items())

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.b_dec.device


def _shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes)) or "of one number"


class Sharing:
    """What processes that share every batch tell one another about their rows; this one trains alone.

    All have equally many rows. Nothing that is told has a gradient.
    """

    size = 1
    """Number of processes."""

    def gathered(self, values: Float[Tensor, " value"]) -> Float[Tensor, " gathered"]:
        """Return the values of all processes, each of which gives equally many."""
        return values

    def mean(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the mean of a number over all processes."""
        return value


ALONE = Sharing()


class TrainingBatch(NamedTuple):
    """A training batch, scaled, and where the training stands."""

    x: Float[Tensor, "row channel"]
    target: Float[
        Tensor, "row channel_out"
    ]  # what is reconstructed: `x`, or for a transcoder another site's rows
    dead: Bool[Tensor, " feature"]  # not active for many steps
    progress: float  # fraction of the training steps taken so far, for what is warmed up
    sharing: Sharing = ALONE  # with the processes that have the batch's other rows


class TrainingStep(NamedTuple):
    """What an objective makes of a batch."""

    terms: dict[str, Tensor]
    """Weighted terms of the loss, scalars; the loss is their sum. "error": mean squared error, rows and channels."""
    x_hat: Float[Tensor, "row channel_out"]
    fired: Int64[Tensor, " feature"]  # number of rows on which each feature is active


class Objective(BaseModel, ABC):
    """Training objective of one architecture: its settings, its loss, its constraints."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: str

    @abstractmethod
    def new_sae(self, d_in: int, d_sae: int, metadata: Mapping[str, Any]) -> SAE:
        """Return an SAE with these settings and all weights zero."""

    @abstractmethod
    def step(self, sae: SAE, batch: TrainingBatch) -> TrainingStep:
        """Encode and decode a batch, and return the loss by its terms."""

    @property
    def initial_norm(self) -> float:
        """Norm of the decoder rows before training."""
        return 1.0

    @torch.no_grad()
    def constrain_gradient(self, sae: SAE) -> None:
        """Before an optimiser step: remove the part of the decoder's gradient along its rows.

        `constrain` would undo movement along a row, but Adam's moments would keep it.
        """
        gradient, rows = sae.W_dec.grad, sae.W_dec
        assert gradient is not None
        gradient.addcmul_(torch.einsum("fc,fc->f", gradient, rows)[:, None], rows, value=-1)

    @torch.no_grad()
    def constrain(self, sae: SAE) -> None:
        """After an optimiser step: give the decoder rows unit norm."""
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))

    def trained(self, sae: SAE) -> SAE:
        """Return what is kept of a trained SAE; the SAE itself, unless it is used otherwise than it is trained."""
        return sae
