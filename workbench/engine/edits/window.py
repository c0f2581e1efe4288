"""When an edit acts, and on which part of its target: `Window`."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, TypedDict, cast

from pydantic import ConfigDict

from cache.errors import UserError
from cache.protocol import Pass

ConditioningPart = Literal["keys", "values", "mask"]
CONDITIONING_PARTS: tuple[ConditioningPart, ...] = ("keys", "values", "mask")


@dataclass(frozen=True, kw_only=True)
class Window:
    """The calls in which an edit acts, and the part of its target that it changes; None means no restriction.

    `steps` (first, last) restricts the calls, inclusive, as does `sigmas` (low, high), which excludes its low end so
    that adjacent windows share no call; `passes` are guidance passes. For outputs, `tokens` (first, last) restricts the
    site's token axis, and `heads` selects attention heads at `q`, `k`, `v` or `heads` sites (key and value heads at `k`
    and `v`). For the conditioning, `segments` are spans of its tokens (see `workbench.engine.segments`), and `parts`
    are some of keys, values and mask; keys include their positions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    steps: tuple[int, int] | None = None
    sigmas: tuple[float, float] | None = None
    passes: tuple[Pass, ...] | None = None
    tokens: tuple[int, int] | None = None
    heads: tuple[int, ...] | None = None
    segments: tuple[str, ...] | None = None
    parts: tuple[ConditioningPart, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "sigmas", "tokens"):
            window = getattr(self, name)
            if window is None:
                continue
            if not all(0 <= end < math.inf for end in window):
                raise UserError(
                    f"The {name} window {window[0]} to {window[1]} must have finite ends that are not below 0."
                )
            # A window of sigmas excludes its low end.
            if window[0] > window[1] or (name == "sigmas" and window[0] == window[1]):
                raise UserError(
                    f"The {name} window {window[0]} to {window[1]} is empty. Give the lower end first."
                )
        for name in ("passes", "heads", "segments", "parts"):
            values = getattr(self, name)
            if values == ():
                raise UserError(f"The {name} of an edit must be at least one, or None for all; got none.")
            if values is not None and len(set(values)) < len(values):
                raise UserError(
                    f"The {name} of an edit must each be given once; got {', '.join(map(str, values))}."
                )
        if min(self.heads or (0,)) < 0:
            raise UserError(f"Heads are numbered from 0; got {min(self.heads or ())}.")

    def acts_at(self, step: int, sigma: float, pass_name: str) -> bool:
        """Whether the window includes this pass of this call."""
        return self.includes(step, sigma) and (self.passes is None or pass_name in self.passes)

    def includes(self, step: int, sigma: float) -> bool:
        """Whether the window includes any pass of this call."""
        in_steps = self.steps is None or self.steps[0] <= step <= self.steps[1]
        return in_steps and (self.sigmas is None or self.sigmas[0] < sigma <= self.sigmas[1])

    @property
    def options(self) -> "WindowOptions":
        """Return the restrictions as keyword arguments of the functions that make edits."""
        return cast(
            WindowOptions, {name: value for name, value in self.__dict__.items() if value is not None}
        )


EVERYTHING = Window()


class WindowOptions(TypedDict, total=False):
    """The fields of `Window` as keyword arguments."""

    steps: tuple[int, int] | None
    sigmas: tuple[float, float] | None
    passes: tuple[Pass, ...] | None
    tokens: tuple[int, int] | None
    heads: tuple[int, ...] | None
    segments: tuple[str, ...] | None
    parts: tuple[ConditioningPart, ...] | None
