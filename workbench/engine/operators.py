"""Operators: what an edit makes of a site's output. A new one is a function and an entry of `OPERATORS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from cache.errors import UserError
from workbench.engine.edits import AblationSpec, ClampSpec, PatchSpec, Spec, SteerSpec
from workbench.engine.sites import PARTS, Site


class Region:
    """The tokens and channels of a row that an edit reaches; `positions` are conditioning tokens, None for all."""

    def __init__(self, spec: Spec, positions: tuple[int, ...] | None, head_dim: int) -> None:
        heads, tokens = spec.heads, spec.tokens
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


def patch(spec: PatchSpec, given: Operands) -> Float[torch.Tensor, "some_tokens some_channels"]:
    """The source's value, or one as far from the row's own in a random direction."""
    source = given.region.read(given.sources[0])
    return source if spec.random_seed is None else _as_far(given.own, source, spec.random_seed, given.site)


def ablate(spec: AblationSpec, given: Operands) -> Float[torch.Tensor, "some_tokens some_channels"]:
    """Zero, the mean of the sources over rows and tokens, or the source's value."""
    if spec.method == "zero":
        return torch.zeros_like(given.own)
    if spec.method == "mean":
        return given.region.read(given.sources.mean(dim=(0, 1))[None].expand_as(given.sources[0]))
    return given.region.read(given.sources[0])


def add(spec: SteerSpec, given: Operands) -> Float[torch.Tensor, "some_tokens some_channels"]:
    """The row's own value and `strength * direction`."""
    return given.own + spec.strength * _direction(spec, given.own)


def clamp(spec: ClampSpec, given: Operands) -> Float[torch.Tensor, "some_tokens some_channels"]:
    """The row's own value x moved along the unit direction u until x·u is the projection asked for."""
    direction = _direction(spec, given.own)
    unit = direction / direction.norm()
    return given.own + (spec.projection - given.own @ unit)[:, None] * unit


Operator = Callable[[Any, Operands], Float[torch.Tensor, "some_tokens some_channels"]]
OPERATORS: dict[type[Spec], Operator] = {
    PatchSpec: patch,
    AblationSpec: ablate,
    SteerSpec: add,
    ClampSpec: clamp,
}


def new_value(spec: Spec, given: Operands) -> Float[torch.Tensor, "some_tokens some_channels"]:
    """What an edit puts into its region."""
    return OPERATORS[type(spec)](spec, given)


def _direction(
    spec: SteerSpec | ClampSpec, own: Float[torch.Tensor, "token channel"]
) -> Float[torch.Tensor, " channel"]:
    direction = torch.tensor(spec.direction, dtype=own.dtype, device=own.device)
    if direction.shape != own.shape[-1:]:
        raise UserError(
            f"The direction has {len(direction)} numbers but {spec.sites[0]} has {own.shape[-1]} channels."
        )
    return direction


def _as_far(
    own: Float[torch.Tensor, "token channel"],
    source: Float[torch.Tensor, "token channel"],
    seed: int,
    site: Site,
) -> Float[torch.Tensor, "token channel"]:
    """A value as far from `own` as `source`, token by token, in directions drawn once for the seed and the site."""
    draws = torch.Generator().manual_seed(
        (seed * 100_003 + site.block * len(PARTS) + PARTS.index(site.part)) % 2**64
    )
    direction = torch.randn(own.shape, generator=draws).to(own)
    unit = direction / direction.norm(dim=-1, keepdim=True)
    return own + unit * (source - own).norm(dim=-1, keepdim=True)
