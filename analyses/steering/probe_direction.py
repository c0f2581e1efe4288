"""The weights of a linear probe as a direction."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from analyses.probes.scores import fitted_probe
from analyses.probes.spec import ProbeSpec
from analyses.steering.capture import Fit, GroupSums, Method, PairCapture, PairOptions, PairValues, fit
from analyses.steering.reliability import reliability_of_refits
from analyses.steering.vector import Vector
from workbench.models.base import AudioDiffusionModel

UNIT = "the mean difference within pairs, along the weights of a logistic regression"
DEFAULT_C = ProbeSpec().C


class Probe(Method):
    """The weights of a logistic regression that tells clean from corrupt clips by the token mean of a site's output.

    It is the probe of `analyses.probes`, on standardised activations, with inverse penalty `C`. With its weights w in
    the units of the activations, and the mean difference Δ of clean and corrupt clips, the direction is w (w·Δ) / |w|²:
    the part of Δ along w.
    """

    C: float = Field(DEFAULT_C, gt=0)

    def start(self, captured: PairCapture) -> Fit:
        """Start a fit."""
        return _ProbeFit(self.C, captured)


def probe(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    *,
    C: float = DEFAULT_C,
    **options: Unpack[PairOptions],
) -> Vector:
    """Compute the direction of a probe's weights at each site, pass and step (see `Probe`); options are as for `caa`.

    What a probe reads need not be what the model uses: its weights also cancel noise that the concept's direction has
    in common with other things. Its reliability is not computed.

    Raises:
        UserError: as `caa`.
    """
    (vector,) = fit(model, concept, sites, [Probe(C=C)], **options)
    return vector


class _ProbeFit:
    """The fit of `Probe`."""

    def __init__(self, C: float, captured: PairCapture) -> None:
        self._C = C
        self._captured = captured
        self._clean, self._corrupt = (GroupSums(captured, captured.n_pairs) for _ in range(2))

    @property
    def sums(self) -> list[GroupSums]:
        return [self._clean, self._corrupt]

    def add(self, values: PairValues) -> None:
        self._clean.add(values, values.clean.mean(dim=2))
        self._corrupt.add(values, values.corrupt.mean(dim=2))

    def vector(self) -> Vector:
        clean, corrupt = self._clean.arrays, self._corrupt.arrays
        directions = {}
        for site, of_clean in clean.items():
            means = np.concatenate([of_clean, corrupt[site]])
            is_clean = np.arange(len(means)) < len(of_clean)
            directions[site] = np.empty(means.shape[1:])
            for cell in np.ndindex(means.shape[1:-1]):
                directions[site][cell] = probe_direction(means[(slice(None), *cell)], is_clean, self._C)
        captured = self._captured
        reliable = reliability_of_refits(
            lambda _: directions, captured.n_groups, captured.passes, captured.n_pairs, draws=0
        )
        return captured.vector("probe", UNIT, directions, reliable)


def probe_direction(
    x: Float[np.ndarray, "clip channel"], is_positive: Bool[np.ndarray, " clip"], C: float = DEFAULT_C
) -> Float[np.ndarray, " channel"]:
    """Return w (w·Δ) / |w|² with a probe's weights w and the mean difference Δ; zero for a single class."""
    if is_positive.all() or not is_positive.any():
        return np.zeros(x.shape[1])
    scaler, logistic = fitted_probe(x, is_positive, C)
    weights = logistic.coef_[0] / scaler.scale_
    difference = x[is_positive].mean(axis=0) - x[~is_positive].mean(axis=0)
    length = float(weights @ weights)
    return weights * (weights @ difference) / length if length else weights
