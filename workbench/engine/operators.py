"""Operators, which compute the new values in an edit's window; each is a function and an entry in `OPERATORS`."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field

from cache.errors import UserError
from workbench.engine.sites import PARTS, EditTarget, Site
from workbench.engine.tensors import HashedTensor
from workbench.sae.topk import keep_largest
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

    A velocity is one token, and has no site.
    """

    own: Float[torch.Tensor, "some_tokens some_channels"]
    sources: Float[torch.Tensor, "source token channel"]
    region: Region
    site: Site | None

    def source(self, place: int = 0) -> Float[torch.Tensor, "some_tokens some_channels"]:
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


FeatureMode = Literal["pre_topk", "post_topk", "inject"]
"""How an edit changes SAE features; see `edit_features`."""


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Parameters):
    """A TopK SAE: its parameters with SAELens' names, and k."""

    W_enc: HashedTensor
    b_enc: HashedTensor
    W_dec: HashedTensor
    b_dec: HashedTensor
    k: Annotated[int, Field(ge=1)]

    def __post_init__(self) -> None:
        features, channels = self.W_dec.value.shape if self.W_dec.value.ndim == 2 else (0, 0)
        shapes = [tuple(each.value.shape) for each in (self.W_enc, self.b_enc, self.W_dec, self.b_dec)]
        if shapes != [(channels, features), (features,), (features, channels), (channels,)]:
            raise UserError(
                "An autoencoder must have W_enc (channel, feature), b_enc (feature), W_dec (feature, channel) and "
                f"b_dec (channel); got the shapes {', '.join(map(str, shapes))}."
            )
        if self.k > features:
            raise UserError(f"k must be at most the number of features, {features}; got {self.k}.")

    def check_size(self, site: Site, tokens: int | None, channels: int) -> None:  # noqa: ARG002 - the same for all
        """Raise UserError for an autoencoder of another width."""
        width = len(self.b_dec.value)
        if width != channels:
            raise UserError(
                f"The autoencoder must have {channels} channels, those of {site}; it has {width}."
            )


@dataclass(frozen=True, kw_only=True)
class FeatureEdit(Autoencoder):
    """An SAE, and what is done to some of its features."""

    features: tuple[int, ...]
    strength: Number = 1.0
    mode: FeatureMode = "post_topk"

    def __post_init__(self) -> None:
        super().__post_init__()
        n_features = len(self.b_enc.value)
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
    """Return h + (z' − z) W_dec with the SAE's features z of the row's own value h, and z' after the edit.

    The SAE's error h − (z W_dec + b_dec) is kept. z = TopK(a) with a = relu((h − b_dec) W_enc + b_enc). With strength
    s, z' is for the edited features j:

    - pre_topk: TopK(a'), with a'_j = relu(1 + s) · a_j, so that features may enter and leave the k largest;
    - post_topk: z'_j = (1 + s) · z_j, which changes only features that are active;
    - inject: z'_j = s, active or not.
    """
    own, every = _pre_topk(parameters, given.own)
    acts = keep_largest(every, parameters.k)
    features = list(parameters.features)
    if parameters.mode == "pre_topk":
        every[:, features] *= max(0.0, 1 + parameters.strength)
        edited = keep_largest(every, parameters.k)
    else:
        edited = acts.clone()
        edited[:, features] = (
            acts.new_tensor(parameters.strength)  # infinite if it is too large, as in other operators
            if parameters.mode == "inject"
            else (1 + parameters.strength) * acts[:, features]
        )
    return (own + (edited - acts) @ _like(parameters.W_dec, own)).to(given.own)


def take_reconstruction(given: Operands, parameters: Autoencoder) -> Value:
    """Return z W_dec + b_dec with the SAE's features z of the source's value (see `edit_sae_features`)."""
    source = given.source()
    wide, every = _pre_topk(parameters, source)
    acts = keep_largest(every, parameters.k)
    return (acts @ _like(parameters.W_dec, wide) + _like(parameters.b_dec, wide)).to(source)


def _pre_topk(sae: Autoencoder, value: Value) -> tuple[Value, Float[torch.Tensor, "some_tokens feature"]]:
    """Return a value in at least float32, and its features' activations before TopK."""
    # Half precision would move activations across the threshold of TopK.
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    W_enc, b_enc, b_dec = (_like(each, wide) for each in (sae.W_enc, sae.b_enc, sae.b_dec))
    return wide, ((wide - b_dec) @ W_enc + b_enc).relu()


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


def _like(tensor: HashedTensor, value: torch.Tensor) -> torch.Tensor:
    """Return a large tensor with the device and dtype of a value."""
    return _on(tensor, value.device, value.dtype)


@lru_cache(maxsize=16)
def _on(tensor: HashedTensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return a large tensor on a device, where it stays for the next calls."""
    return tensor.value.to(device, dtype)


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
