"""Operators: what an edit makes of the values in its window. A new one is a function and an entry of `OPERATORS`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict

from cache.errors import UserError
from workbench.engine.sites import PARTS, Site, Target
from workbench.engine.tensors import HashedTensor


class Region:
    """The tokens and channels of a row that an edit reaches.

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
        """The region of a row."""
        return row[self.tokens][:, self.channels]

    def write(
        self,
        row: Float[torch.Tensor, "token channel"],
        value: Float[torch.Tensor, "some_tokens some_channels"],
    ) -> None:
        """Put a value into the region of a row."""
        part = row[self.tokens]
        part[:, self.channels] = value
        row[self.tokens] = part


@dataclass(frozen=True)
class Operands:
    """What an operator works on: the row's own region, as earlier edits left it, and the source rows, whole."""

    own: Float[torch.Tensor, "some_tokens some_channels"]
    sources: Float[torch.Tensor, "source token channel"]
    region: Region
    site: Site

    def source(self, place: int = 0) -> Float[torch.Tensor, "some_tokens some_channels"]:
        """The region of a source."""
        return self.region.read(self.sources[place])


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What an operator needs besides its operands; this one needs nothing."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @property
    def changes_nothing(self) -> bool:
        """Whether the operator with these parameters leaves every value as it is."""
        return False

    def check_sources(self, n_sources: int) -> None:
        """Raise UserError where they do not fit this many sources."""

    def check_channels(self, site: Site, channels: int) -> None:
        """Raise UserError where they do not fit a site of which this many channels are edited."""


NO_PARAMETERS = Parameters()


@dataclass(frozen=True, kw_only=True)
class Seeded(Parameters):
    """The seed of random draws."""

    seed: int


@dataclass(frozen=True, kw_only=True)
class Addition(Parameters):
    """A vector, and what it is multiplied with."""

    vector: HashedTensor
    strength: float = 1.0

    @property
    def changes_nothing(self) -> bool:
        """Whether the strength is 0."""
        return self.strength == 0

    def check_channels(self, site: Site, channels: int) -> None:
        """Raise UserError for a vector of another width."""
        _check_width(self.vector, site, channels)


@dataclass(frozen=True, kw_only=True)
class Projection(Parameters):
    """The projection x·d / |d| onto a vector d, in the units of the site's output."""

    vector: HashedTensor
    projection: float = 0.0

    def __post_init__(self) -> None:
        if not bool(self.vector.value.any()):
            raise UserError("A vector to clamp along must have a number that is not 0.")

    def check_channels(self, site: Site, channels: int) -> None:
        """Raise UserError for a vector of another width."""
        _check_width(self.vector, site, channels)


@dataclass(frozen=True, kw_only=True)
class Weights(Parameters):
    """A weight for each source."""

    weights: tuple[float, ...]

    def check_sources(self, n_sources: int) -> None:
        """Raise UserError where they do not fit this many sources."""
        if len(self.weights) != n_sources:
            raise UserError(f"A blend needs a weight for each source: {n_sources}, not {len(self.weights)}.")


Value = Float[torch.Tensor, "some_tokens some_channels"]


def take_source(given: Operands, parameters: Parameters) -> Value:  # noqa: ARG001 - it has none
    """The source's value."""
    return given.source()


def as_far_as_source(given: Operands, parameters: Seeded) -> Value:
    """A value as far from the row's own as the source's, token by token, in directions drawn for seed and site."""
    part = given.site.block * len(PARTS) + PARTS.index(given.site.part)
    draws = torch.Generator().manual_seed((parameters.seed * 100_003 + part) % 2**64)
    direction = torch.randn(given.own.shape, generator=draws).to(given.own)
    unit = direction / direction.norm(dim=-1, keepdim=True)
    return given.own + unit * (given.source() - given.own).norm(dim=-1, keepdim=True)


def zero(given: Operands, parameters: Parameters) -> Value:  # noqa: ARG001 - it has none
    """Zero."""
    return torch.zeros_like(given.own)


def mean_of_sources(given: Operands, parameters: Parameters) -> Value:  # noqa: ARG001 - it has none
    """The mean of the sources over rows and tokens."""
    return given.region.read(given.sources.mean(dim=(0, 1))[None].expand_as(given.sources[0]))


def add_vector(given: Operands, parameters: Addition) -> Value:
    """The row's own value and `strength * vector`."""
    return given.own + parameters.strength * parameters.vector.value.to(given.own)


def set_projection(given: Operands, parameters: Projection) -> Value:
    """The row's own value x moved along the unit vector u until x·u is the projection asked for."""
    vector = parameters.vector.value.to(given.own)
    unit = vector / vector.norm()
    return given.own + (parameters.projection - given.own @ unit)[:, None] * unit


def weighted_sum(given: Operands, parameters: Weights) -> Value:
    """The sum of the sources' values, each times its weight."""
    weights = torch.tensor(parameters.weights, dtype=given.own.dtype, device=given.own.device)
    values = torch.stack([given.source(place) for place in range(len(weights))])
    return (weights[:, None, None] * values).sum(dim=0)


@dataclass(frozen=True)
class Operator:
    """A function of operands and parameters, and what it may be given.

    `sources` are the least and the most runs that it reads from. `alike` says that their conditioning tokens must lie
    at the same places, because values of several are put together.
    """

    function: Callable[[Operands, Any], Value]
    parameters: type[Parameters] = Parameters
    targets: tuple[Target, ...] = ("output",)
    sources: tuple[int, int] = (0, 0)
    alike: bool = False


MANY = 10_000
OPERATORS: dict[str, Operator] = {
    "patch": Operator(take_source, targets=("output", "conditioning"), sources=(1, 1)),
    "random_patch": Operator(as_far_as_source, Seeded, ("output", "conditioning"), sources=(1, 1)),
    "zero": Operator(zero),
    "mean": Operator(mean_of_sources, sources=(1, MANY)),
    "resample": Operator(take_source, sources=(1, 1)),
    "add": Operator(add_vector, Addition),
    "clamp": Operator(set_projection, Projection),
    "blend": Operator(weighted_sum, Weights, ("conditioning",), sources=(1, MANY), alike=True),
}


def _check_width(vector: HashedTensor, site: Site, channels: int) -> None:
    if vector.value.shape != (channels,):
        raise UserError(f"The vector has {vector.value.numel()} numbers but {site} has {channels} channels.")
