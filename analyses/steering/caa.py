"""Contrastive activation addition: directions as differences of mean activations (TADA, arXiv 2602.11910, Eq. 6)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Unpack, cast

import torch
from jaxtyping import Float
from pydantic import BeforeValidator

from analyses.steering.capture import Fit, GroupSums, Method, PairCapture, PairOptions, PairValues, fit
from analyses.steering.reliability import reliability
from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel

UNIT = "the mean difference of activations within pairs, positive minus negative"
Time = Literal["constant", "token"] | int
"""How a direction changes along the clip; a number is the length of a cycle in tokens."""


def _checked_time(time: Any) -> Time:
    if time in ("constant", "token") or (type(time) is int and time >= 1):
        return cast(Time, time)
    raise ValueError(f"must be 'constant', 'token' or the number of tokens of a cycle, not {time!r}")


class CAA(Method):
    """Contrastive activation addition: the mean difference of a site's output within pairs.

    Along the clip the direction is `constant`, the mean over tokens, as in TADA; or one for each `token`; or, with a
    number, one for each phase of a cycle of so many tokens. Constant directions cannot carry rhythm.
    """

    time: Annotated[Time, BeforeValidator(_checked_time)] = "constant"

    def start(self, captured: PairCapture) -> Fit:
        """Start a fit; raise UserError for directions along the clip that a site cannot have."""
        for site in captured.capture.sites:
            check_time(self.time, site, captured.model.tokens_at(site, captured.settings.duration))
        return _MeanDifference(self.time, captured)


def caa(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    *,
    time: Time = "constant",
    **options: Unpack[PairOptions],
) -> Vector:
    """Compute a concept's direction at each site, pass and step: the mean difference of its output within pairs.

    The mean is over counterfactual pairs, which differ only in the concept and share their noise; each pair has a
    different seed, from `seed` on. The direction points towards the value `positive`, by default the concept's first
    in the prompt set, and away from `negative`, by default all others. It is not normalised; TADA normalises it to
    unit length. Its course along the clip is given by `time` (see `CAA`); further options are those of
    `capture_of_pairs`.

    Raises:
        UserError: if a concept, value, site, pass or prompt set is unknown, there are fewer pairs, or a cycle is longer
            than the clip.
    """
    (vector,) = fit(model, concept, sites, [CAA(time=time)], **options)
    return vector


def check_time(time: Time, site: Site, tokens: int) -> None:
    """Raise UserError for directions along the clip that the site cannot have."""
    if time != "constant" and site.on_conditioning:
        raise UserError(
            f"{site} has no latent time. Make a direction that is constant in time (time='constant')."
        )
    if isinstance(time, int) and time > tokens:
        raise UserError(f"The cycle must be at most the {tokens} tokens of {site}; got {time}.")


class _MeanDifference:
    """The fit of `CAA`."""

    def __init__(self, time: Time, captured: PairCapture) -> None:
        self._time = time
        self._captured = captured
        self._differences = GroupSums(captured)

    @property
    def sums(self) -> list[GroupSums]:
        return [self._differences]

    def add(self, values: PairValues) -> None:
        self._differences.add(values, _along_time(values.clean - values.corrupt, self._time))

    def vector(self) -> Vector:
        sums, n_pairs = self._differences.arrays, self._captured.n_pairs
        return self._captured.vector(
            "caa",
            UNIT,
            {site: groups.sum(axis=0) / n_pairs for site, groups in sums.items()},
            reliability(sums, self._captured.passes, n_pairs),
            cycle=isinstance(self._time, int),
        )


def _along_time(
    values: Float[torch.Tensor, "pair pass token channel"], time: Time
) -> Float[torch.Tensor, "pair pass *kept channel"]:
    """Return the mean over tokens, every token, or the mean of each phase of a cycle."""
    if time == "token":
        return values
    if time == "constant":
        return values.mean(dim=2)
    return torch.stack([values[:, :, phase::time].mean(dim=2) for phase in range(time)], dim=2)
