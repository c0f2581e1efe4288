"""How a vector's strength changes over the steps of a run."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from cache.errors import UserError
from cache.wording import quoted
from workbench.validation import Number, must_be, validated

Schedule = str | Sequence[float]
"""The name of a schedule (constant, linear, cosine, early, late), or the weight of each step, also as "1,1,0.5,0"."""
Over = Literal["steps", "sigmas"]
Stretch = tuple[tuple[int, int], float]
"""A window of steps (first, last), and the strength in it."""
EARLY, LATE = 0.4, 0.6
"""Progress at which `early` ends, and at which `late` begins."""

_NAMED: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,  # noqa: ARG005 - the same throughout
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "early": lambda progress: float(progress < EARLY),
    "late": lambda progress: float(progress >= LATE),
}


def weights(schedule: Schedule, sigmas: Sequence[float], over: Over = "steps") -> Float[np.ndarray, " step"]:
    """Return the weight of each step of a run with these sigmas, by which its strength is multiplied.

    A named schedule is a function of the progress of a run, from 0 at the first step up to, but not including, 1 at its
    end: step / number of steps or, `over` sigmas, 1 - sigma / first sigma. `linear` falls from 1 to 0, and `cosine` as
    (1 + cos(π · progress)) / 2; `early` acts in the first 40 % and `late` in the last 40 %.

    Raises:
        UserError: for an unknown name, or a list whose length is not the number of steps or that is not finite.
    """
    is_curve = isinstance(schedule, str) and schedule in _NAMED and schedule != "constant"
    if over == "sigmas" and not is_curve:
        raise UserError("Only linear, cosine, early and late schedules follow sigmas (over). Leave it out.")
    if isinstance(schedule, str) and "," not in schedule:
        if schedule not in _NAMED:
            raise UserError(
                f"Unknown schedule {quoted(schedule)}. Use one of {', '.join(_NAMED)}, or a weight per step, such as "
                "1,1,0.5,0."
            )
        if over == "sigmas":
            progress = [1 - sigma / sigmas[0] for sigma in sigmas]
        else:
            progress = [step / len(sigmas) for step in range(len(sigmas))]
        return np.array([_NAMED[schedule](each) for each in progress])
    must_be(Sequence, schedule, f"A schedule must be one of {', '.join(_NAMED)}, or a list of weights")
    try:
        given = np.array(schedule.split(",") if isinstance(schedule, str) else schedule, dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError("The weights of a schedule must be numbers.") from error
    if given.shape != (len(sigmas),) or not np.isfinite(given).all():
        raise UserError(
            f"A schedule must have a finite weight for each of the {len(sigmas)} steps; got {schedule}."
        )
    return given


def scheduled(
    strength: Any, sigmas: Sequence[float], schedule: Schedule, over: Any, start_step: Any
) -> list[Stretch]:
    """Return the stretches of a strength on a schedule, from a first step on; see `weights` and `stretches`.

    Raises:
        UserError: for an unknown schedule, a strength that is not finite, or a first step beyond the last one.
    """
    how = validated(
        _Application, {"strength": strength, "over": over, "start_step": start_step}, "Invalid steering"
    )
    by_step = how.strength * weights(schedule, sigmas, how.over)
    if how.start_step >= len(by_step):
        raise UserError(f"The first steered step must be from 0 to {len(by_step) - 1}; got {start_step}.")
    by_step[: how.start_step] = 0
    return stretches(by_step)


@dataclass(frozen=True, kw_only=True)
class _Application:
    """Checked arguments of `scheduled`."""

    strength: Annotated[Number, Field(allow_inf_nan=False)]
    over: Over
    start_step: Annotated[int, Field(ge=0)]


def stretches(by_step: Sequence[float] | Float[np.ndarray, " step"]) -> list[Stretch]:
    """Return the windows of steps (first, last) in which neighbouring steps have the same strength, except 0."""
    grouped = itertools.groupby(enumerate(map(float, by_step)), key=lambda each: each[1])
    steps = [(strength, [step for step, _ in group]) for strength, group in grouped]
    return [((inside[0], inside[-1]), strength) for strength, inside in steps if strength]
