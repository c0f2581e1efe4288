"""Operators, which compute the new values in an edit's window; each is a function and an entry in `OPERATORS`."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict

from cache.errors import UserError
from workbench.engine.autoencoders import HashedSAE
from workbench.engine.sites import PARTS, EditTarget, Site
from workbench.engine.tensors import HashedTensor
from workbench.seeds import Seed
from workbench.validation import Number


class Region:
    """The tokens and channels of a row that an edit changes.

    `tokens` (first, last) is a window of latent time, `positions` are conditioning tokens; None for all.
    """

    def __init__(
        self,
        tokens: tuple[int, int] | None,
        heads: Sequence[int] | None,
        positions: Sequence[int] | None,
        head_dim: int,
    ) -> None:
        self.tokens: slice | list[int] = slice(None)
        if tokens is not None:
            self.tokens = slice(tokens[0], tokens[1] + 1)
        elif positions is not None:
            self.tokens = list(positions)
        self.channels: slice | list[int] = slice(None)
        if heads is not None:
            self.channels = [channel for h in heads for channel in range(h * head_dim, (h + 1) * head_dim)]

    def read(
        self, row: Float[torch.Tensor, "token channel"]
    ) -> Float[torch.Tensor, "some_tokens some_channels"]:
        """Return the region of a row."""
        return row[self.tokens][:, self.channels]

    def write(
        self,
        row: Float[torch.Tensor, "token channel"],
        value: Float[torch.Tensor, "some_tokens some_channels"],
    ) -> None:
        """Write a value to the region of a row."""
        part = row[self.tokens]
        part[:, self.channels] = value
        row[self.tokens] = part


@dataclass(frozen=True)
class Operands:
    """The operands of an operator: the row's own region, after earlier edits, and the complete source rows.

    A velocity is one token, and has no site. If the edit reads another site than it changes, `read` is the row's own
    region there, and the source rows are those of that site.
    """

    own: Float[torch.Tensor, "some_tokens some_channels"]
    sources: Float[torch.Tensor, "source token channel_read"]
    region: Region
    site: Site | None
    step: int
    read: Float[torch.Tensor, "some_tokens some_channels_read"] | None = None

    def source(self, place: int = 0) -> Float[torch.Tensor, "some_tokens some_channels_read"]:
        """Return the region of a source."""
        return self.region.read(self.sources[place])


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters of an operator; none by default."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )

    @property
    def changes_nothing(self) -> bool:
        """Whether the operator with these parameters leaves every value as it is."""
        return False

    def check_sources(self, n_sources: int) -> None:
        """Raise UserError if the parameters do not match the number of sources."""

    def check_size(self, site: Site, tokens: int | None, channels: int) -> None:
        """Raise UserError if they do not fit a site with this many edited tokens of latent time and channels.

        `tokens` is None for a site along the conditioning tokens, whose number depends on the clips.
        """

    @property
    def read_site(self) -> Site | None:
        """The site whose values are read instead of those of the edited site; None for the edited one."""
        return None

    def check_read(self, site: Site, channels: int) -> None:
        """Raise UserError if they do not fit the site that is read, which has this many channels."""

    def check_step(self, step: int) -> None:
        """Raise UserError if they cannot be applied at a step of a run."""

    def check_weight(self, site: Site, n_out: int, n_in: int) -> None:
        """Raise UserError if they do not fit the weight (out, in) of the linear module of a site."""


NO_PARAMETERS = Parameters()


@dataclass(frozen=True, kw_only=True)
class Seeded(Parameters):
    """The seed of random draws."""

    seed: Seed


@dataclass(frozen=True, kw_only=True)
class Addition(Parameters):
    """A vector and the strength that multiplies it.

    The vector has dims (channel), for all tokens alike, or (token, channel). One of fewer tokens than are edited must
    be a `cycle`: token t of the clip then gets row t modulo their number. With `keep_norm` every token is scaled to the
    norm that it had before.
    """

    vector: HashedTensor
    strength: Number = 1.0
    keep_norm: bool = False
    cycle: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether the strength is 0."""
        return self.strength == 0

    def check_size(self, site: Site, tokens: int | None, channels: int) -> None:
        """Raise UserError for a vector of another width, or of other tokens."""
        shape = self.vector.value.shape
        if len(shape) != 2:
            _check_width(self.vector, site, channels)
        elif shape[1] != channels:
            raise UserError(
                f"The vector must have {channels} numbers for each token, the channels of {site}; it has {shape[1]}."
            )
        elif tokens is None:
            raise UserError(f"{site} has no latent time, so that a vector by token cannot be added there.")
        elif shape[0] != tokens and not self.cycle:
            raise UserError(
                f"The vector has numbers for {shape[0]} tokens, but {tokens} tokens of {site} are edited. Use the "
                "duration that it was made for, or one that repeats (cycle=True)."
            )


@dataclass(frozen=True, kw_only=True)
class Projection(Parameters):
    """The projection x·d / |d| onto a vector d, in the units of the site's output."""

    vector: HashedTensor
    projection: Number = 0.0

    def __post_init__(self) -> None:
        _check_direction(self.vector)

    def check_size(self, site: Site, tokens: int | None, channels: int) -> None:  # noqa: ARG002 - the same for all
        """Raise UserError for a vector of another width."""
        _check_width(self.vector, site, channels)


@dataclass(frozen=True, kw_only=True)
class Removal(Parameters):
    """A vector, and the share of the positive projection onto it that is taken out."""

    vector: HashedTensor
    amount: Number = 1.0

    def __post_init__(self) -> None:
        _check_direction(self.vector)

    @property
    def changes_nothing(self) -> bool:
        """Whether the amount is 0."""
        return self.amount == 0

    def check_size(self, site: Site, tokens: int | None, channels: int) -> None:  # noqa: ARG002 - the same for all
        """Raise UserError for a vector of another width."""
        _check_width(self.vector, site, channels)


@dataclass(frozen=True, kw_only=True)
class Difference(Parameters):
    """The strength of a difference of two sources; if `constant`, its mean over the edited tokens is added to each."""

    strength: Number = 1.0
    constant: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether the strength is 0."""
        return self.strength == 0


@dataclass(frozen=True, kw_only=True)
class Weights(Parameters):
    """One weight per source."""

    weights: tuple[Number, ...]

    def check_sources(self, n_sources: int) -> None:
        """Raise UserError if the parameters do not match the number of sources."""
        if len(self.weights) != n_sources:
            raise UserError(
                f"A blend must have one weight for each of its {n_sources} sources; got {len(self.weights)}."
            )


@dataclass(frozen=True, kw_only=True)
class LowRank(Parameters):
    """A change `strength * up @ down` of a linear module's weight, such as a LoRA's.

    The factors are down (rank, in) and up (out, rank).
    """

    down: HashedTensor
    up: HashedTensor
    strength: Number = 1.0

    def __post_init__(self) -> None:
        shapes = down, up = tuple(self.down.value.shape), tuple(self.up.value.shape)
        if any(len(shape) != 2 for shape in shapes) or down[0] != up[1]:
            raise UserError(
                "A low-rank change must have two factors, down (rank, in) and up (out, rank); got the shapes "
                f"{down} and {up}."
            )

    @property
    def changes_nothing(self) -> bool:
        """Whether the strength is 0."""
        return self.strength == 0

    def check_weight(self, site: Site, n_out: int, n_in: int) -> None:
        """Raise UserError for factors of another weight."""
        given = (self.up.value.shape[0], self.down.value.shape[1])
        if given != (n_out, n_in):
            raise UserError(
                f"A low-rank change at {site} must be of a weight with {n_out} outputs and {n_in} inputs; it has "
                f"{given[0]} and {given[1]}. Use one that was made on this model."
            )


FeatureMode = Literal["pre_activation", "post_activation", "inject"]
"""How an edit changes SAE features; see `edit_features`."""


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Parameters):
    """An SAE of any architecture."""

    sae: HashedSAE

    @property
    def read_site(self) -> Site | None:
        """The site that a transcoder reads."""
        return Site.parse(self.sae.read_site) if self.sae.read_site else None

    def check_step(self, step: int) -> None:
        """Raise UserError if inputs were scaled per step, and this step was not one of them."""
        self.sae.checked_config.check_step(step)

    def check_read(self, site: Site, channels: int) -> None:
        """Raise UserError for a transcoder whose inputs have another width."""
        self._check_width(site, channels, self.sae.checked_config.d_in)

    def check_size(self, site: Site, tokens: int | None, channels: int) -> None:  # noqa: ARG002 - the same for all
        """Raise UserError for an autoencoder of another width."""
        self._check_width(site, channels, self.sae.checked_config.d_out)

    def _check_width(self, site: Site, channels: int, own: int) -> None:
        if own != channels:
            raise UserError(f"The autoencoder must have {channels} channels, those of {site}; it has {own}.")


@dataclass(frozen=True, kw_only=True)
class FeatureEdit(Autoencoder):
    """An SAE, and what is done to some of its features."""

    features: tuple[int, ...]
    strength: Number = 1.0
    mode: FeatureMode = "post_activation"

    def __post_init__(self) -> None:
        n_features = self.sae.checked_config.d_sae
        if self.mode == "pre_activation" and not self.sae.kind.SELECTS:
            raise UserError(
                "Features can be scaled before the activation function where it chooses them by their size, as in TopK "
                f"and JumpReLU, not in a {self.sae.checked_config.architecture} one. Use mode='post_activation'."
            )
        if not self.features or len(set(self.features)) < len(self.features):
            raise UserError(
                f"Features must be at least one, each given once; got {', '.join(map(str, self.features)) or 'none'}."
            )
        if not all(0 <= feature < n_features for feature in self.features):
            raise UserError(
                f"This autoencoder has features 0 to {n_features - 1}; got "
                f"{next(feature for feature in self.features if not 0 <= feature < n_features)}."
            )

    @property
    def changes_nothing(self) -> bool:
        """Whether the strength is 0."""
        return self.strength == 0


Value = Float[torch.Tensor, "some_tokens some_channels"]


def take_source(given: Operands, parameters: Parameters) -> Value:  # noqa: ARG001 - it has none
    """Return the source's value."""
    return given.source()


def as_far_as_source(given: Operands, parameters: Seeded) -> Value:
    """Return a value as far from the row's own as the source's, per token, in directions drawn from seed and site."""
    assert given.site is not None
    part = given.site.block * len(PARTS) + PARTS.index(given.site.part)
    draws = torch.Generator().manual_seed((parameters.seed * 100_003 + part) % 2**64)
    direction = torch.randn(given.own.shape, generator=draws).to(given.own)
    unit = direction / direction.norm(dim=-1, keepdim=True)
    return given.own + unit * (given.source() - given.own).norm(dim=-1, keepdim=True)


def zero(given: Operands, parameters: Parameters) -> Value:  # noqa: ARG001 - it has none
    """Zero."""
    return torch.zeros_like(given.own)


def mean_of_sources(given: Operands, parameters: Parameters) -> Value:  # noqa: ARG001 - it has none
    """Return the mean of the sources over rows and tokens."""
    return given.region.read(given.sources.mean(dim=(0, 1))[None].expand_as(given.sources[0]))


def add_vector(given: Operands, parameters: Addition) -> Value:
    """Return the row's own value h plus `strength * vector`, with the norm of h per token if it is kept.

    With the norm kept: ‖h‖ · (h + a) / ‖h + a‖ (TADA's `renorm_after_steer`).
    """
    vector = parameters.vector.value.to(given.own)
    if vector.ndim == 2:
        first = given.region.tokens.start or 0 if isinstance(given.region.tokens, slice) else 0
        tokens = torch.arange(len(given.own), device=vector.device)
        vector = vector[(first + tokens) % len(vector)] if parameters.cycle else vector
    moved = given.own + parameters.strength * vector
    if not parameters.keep_norm:
        return moved
    smallest = torch.finfo(torch.float64).tiny  # a token of zeros stays one
    return (moved.double() * (_norms(given.own) / _norms(moved).clamp_min(smallest))).to(given.own)


def add_source_difference(given: Operands, parameters: Difference) -> Value:
    """Return the row's own value plus `strength` times the first source's value minus the second's."""
    difference = given.source(0) - given.source(1)
    if parameters.constant:
        difference = difference.mean(dim=0, keepdim=True)
    return given.own + parameters.strength * difference


def set_projection(given: Operands, parameters: Projection) -> Value:
    """Move the row's own value x along the unit vector u until x·u is the given projection."""
    unit = _unit(parameters.vector, given.own)
    return given.own + (parameters.projection - given.own @ unit)[:, None] * unit


def remove_projection(given: Operands, parameters: Removal) -> Value:
    """Return x − amount · relu(x·u) · u, with the unit vector u, so that only tokens on its side move (TADA)."""
    unit = _unit(parameters.vector, given.own)
    return given.own - parameters.amount * (given.own @ unit).relu()[:, None] * unit


def weighted_sum(given: Operands, parameters: Weights) -> Value:
    """Return the weighted sum of the sources' values."""
    weights = torch.tensor(parameters.weights, dtype=given.own.dtype, device=given.own.device)
    values = torch.stack([given.source(place) for place in range(len(weights))])
    return (weights[:, None, None] * values).sum(dim=0)


def low_rank_changes(
    inputs: Float[torch.Tensor, "row token n_in"], parameters: Sequence[LowRank]
) -> Float[torch.Tensor, "row token n_out"]:
    """Return what each row's change of the weight adds to the module's output, together for rows with the same factors.

    strength · x downᵀ upᵀ for the module's input x (Hu et al., *LoRA*, arXiv 2106.09685, Eq. 3).
    """
    rows_of = defaultdict(list)
    for row, own in enumerate(parameters):
        rows_of[own.down, own.up].append(row)
    n_out = len(parameters[0].up.value)
    changes = inputs.new_empty(*inputs.shape[:2], n_out)
    for (down, up), rows in rows_of.items():
        strengths = inputs.new_tensor([parameters[row].strength for row in rows])
        product = inputs[rows] @ down.value.to(inputs).T @ up.value.to(inputs).T
        changes[rows] = strengths[:, None, None] * product
    return changes


def edit_sae_features(given: Operands, parameters: FeatureEdit) -> Value:
    """Return h + (z' − z) W_dec with the SAE's features z of the row's own value, and z' after the edit.

    h is the row's own value, so that the SAE's error h − (z W_dec + b_dec) is kept. A transcoder has the features z of
    the value at the site that it reads. z = f(a) with the pre-activations a and the activation function f. With
    strength s, z' is for the edited features j:

    - pre_activation: f(a') with a'_j = relu(1 + s) · a_j, so that features may become active, or no longer be;
    - post_activation: z'_j = (1 + s) · z_j, which changes only features that are active;
    - inject: z'_j = s, active or not.
    """
    read = _wide(given.own if given.read is None else given.read)
    sae = parameters.sae.for_values(read, given.step)
    pre = sae.pre_activations(read)
    acts = sae.activate(pre)
    features = list(parameters.features)
    if parameters.mode == "pre_activation":
        pre[:, features] *= max(0.0, 1 + parameters.strength)
        edited = sae.activate(pre)
    else:
        edited = acts.clone()
        edited[:, features] = (
            acts.new_tensor(parameters.strength)  # infinite if it is too large, as in other operators
            if parameters.mode == "inject"
            else (1 + parameters.strength) * acts[:, features]
        )
    return (_wide(given.own) + (edited - acts) @ sae.W_dec).to(given.own)


def take_reconstruction(given: Operands, parameters: Autoencoder) -> Value:
    """Return z W_dec + b_dec with the SAE's features z of the source's value (see `edit_sae_features`)."""
    source = _wide(given.source())
    return parameters.sae.for_values(source, given.step)(source).to(given.own)


def _wide(value: Value) -> Value:
    """Return a value in at least float32: half precision would move activations across thresholds."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


@dataclass(frozen=True)
class Operator:
    """A function of operands and parameters, with its requirements.

    With the target `weights` the function takes the inputs of a linear module in several rows and the parameters of
    each, and returns what is added to its output. `sources` are the minimum and maximum number of source runs. `alike`
    means that their conditioning tokens must be at the same positions, because their values are combined. `takes` means
    that a row takes values of its sources, with their padding mask and positions; otherwise they only say where words
    differ.
    """

    function: Callable[[Any, Any], torch.Tensor]
    parameters: type[Parameters] = Parameters
    targets: tuple[EditTarget, ...] = ("output",)
    sources: tuple[int, int] = (0, 0)
    alike: bool = False
    takes: bool = True


MANY = 10_000
OPERATORS: dict[str, Operator] = {
    "patch": Operator(take_source, targets=("output", "conditioning"), sources=(1, 1)),
    "random_patch": Operator(as_far_as_source, Seeded, ("output", "conditioning"), sources=(1, 1)),
    "zero": Operator(zero),
    "mean": Operator(mean_of_sources, sources=(1, MANY)),
    "resample": Operator(take_source, sources=(1, 1)),
    "add": Operator(add_vector, Addition),
    "add_to_conditioning": Operator(add_vector, Addition, ("conditioning",), sources=(0, 1), takes=False),
    "add_difference": Operator(add_source_difference, Difference, ("output", "velocity"), sources=(2, 2)),
    "clamp": Operator(set_projection, Projection),
    "steer_back": Operator(remove_projection, Removal),
    "low_rank": Operator(low_rank_changes, LowRank, ("weights",)),
    "edit_features": Operator(edit_sae_features, FeatureEdit),
    "patch_reconstruction": Operator(take_reconstruction, Autoencoder, sources=(1, 1)),
    "blend": Operator(weighted_sum, Weights, ("conditioning",), sources=(1, MANY), alike=True),
}


def operator_named(name: str) -> Operator:
    """Return an operator by its name; raise UserError for an unknown one."""
    if not isinstance(name, str) or name not in OPERATORS:
        raise UserError(f"Unknown operator '{name}'. Use one of {', '.join(OPERATORS)}.")
    return OPERATORS[name]


def _unit(vector: HashedTensor, like: torch.Tensor) -> Float[torch.Tensor, " channel"]:
    wide = vector.value.double()
    scaled = wide / wide.abs().max()  # so that no square overflows or vanishes
    return (scaled / scaled.norm()).to(like)


def _norms(values: Value) -> Float[torch.Tensor, "some_tokens 1"]:
    """Return the norm of each token in float64."""
    return values.double().norm(dim=-1, keepdim=True)


def _check_direction(vector: HashedTensor) -> None:
    if not bool(vector.value.any()):
        raise UserError("A vector to clamp or steer back along must not be zero.")


def _check_width(vector: HashedTensor, site: Site, channels: int) -> None:
    if vector.value.shape != (channels,):
        raise UserError(
            f"The vector must have {channels} numbers, the channels of {site}; it has {vector.value.numel()}."
        )
