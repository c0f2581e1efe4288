"""AUSteer: the channels that change with a concept most consistently (TADA, arXiv 2602.11910; AUSteer, ICLR 2026)."""

from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from analyses.steering.capture import Fit, GroupSums, Method, PairCapture, PairOptions, PairValues, fit
from analyses.steering.reliability import reliability_of_refits
from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.models.base import AudioDiffusionModel

UNIT = "the signed fraction of pairs and tokens in which a channel changes, for the most consistent channels"
Betas = dict[str, Float[np.ndarray, "pass step channel"]]


class AUSteer(Method):
    """Signed consistency of each channel's change, for the `k` most consistent channels of all sites together.

    f⁺ and f⁻ are the fractions, over pairs and tokens, of positive and of negative differences (clean - corrupt) of a
    channel. Its β is +f⁺ if f⁺ ≥ f⁻, else -f⁻. In each pass and step the k largest |β| over all sites are kept and
    all others are 0; of equal ones, those of earlier sites and channels are kept.
    """

    k: int = Field(ge=1, description="the number of channels that are moved")

    def start(self, captured: PairCapture) -> Fit:
        """Start a fit; raise UserError if the sites do not have `k` channels."""
        channels = sum(map(captured.model.channels, captured.capture.sites))
        if self.k > channels:
            raise UserError(
                f"k must be at most {channels}, the channels of all sites together; got {self.k}."
            )
        return _Consistency(self.k, captured)


def austeer(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    *,
    k: int,
    **options: Unpack[PairOptions],
) -> Vector:
    """Compute AUSteer's direction at each site, pass and step (see `AUSteer`); options are as for `caa`.

    A strength of 1 adds up to 1 to each of the `k` chosen channels, in the units of the site's output: all channels
    are moved by nearly the same amount, whatever the size of their changes.

    Raises:
        UserError: as `caa`; or if the sites do not have `k` channels together.
    """
    (vector,) = fit(model, concept, sites, [AUSteer(k=k)], **options)
    return vector


class _Consistency:
    """The fit of `AUSteer`."""

    def __init__(self, k: int, captured: PairCapture) -> None:
        self._k = k
        self._captured = captured
        # Counted rather than averaged, so that equal fractions are equal.
        self._above, self._below = GroupSums(captured), GroupSums(captured)
        self._tokens: dict[str, int] = {}

    @property
    def sums(self) -> list[GroupSums]:
        return [self._above, self._below]

    def add(self, values: PairValues) -> None:
        difference = values.clean - values.corrupt
        self._tokens[str(values.site)] = difference.shape[2]
        self._above.add(values, (difference > 0).sum(dim=2))
        self._below.add(values, (difference < 0).sum(dim=2))

    def vector(self) -> Vector:
        above, below = self._above.arrays, self._below.arrays
        sizes = self._captured.group_sizes

        def betas(groups: Bool[np.ndarray, " group"]) -> Betas:
            of_sites = {}
            for site, tokens in self._tokens.items():
                n = sizes[groups].sum() * tokens
                of_sites[site] = signed_fractions(
                    above[site][groups].sum(axis=0) / n, below[site][groups].sum(axis=0) / n
                )
            return largest_of_all_sites(of_sites, self._k)

        captured = self._captured
        return captured.vector(
            "austeer",
            UNIT,
            betas(np.ones(captured.n_groups, dtype=bool)),
            reliability_of_refits(betas, captured.n_groups, captured.passes, captured.n_pairs),
        )


def signed_fractions(
    above: Float[np.ndarray, "*dims"], below: Float[np.ndarray, "*dims"]
) -> Float[np.ndarray, "*dims"]:
    """Return β: the larger of two fractions, negative if it is `below`; of two equal ones, `above`."""
    return np.where(above >= below, above, -below)


def largest_of_all_sites(betas: Mapping[str, Float[np.ndarray, "pass step _channel"]], k: int) -> Betas:
    """Set all but the `k` largest |β| over all sites to 0, in each pass and step."""
    every = np.concatenate(list(betas.values()), axis=-1)
    order = np.argsort(-np.abs(every), axis=-1, kind="stable")
    kept = np.zeros_like(every)
    np.put_along_axis(kept, order[..., :k], np.take_along_axis(every, order[..., :k], axis=-1), axis=-1)
    ends = np.cumsum([array.shape[-1] for array in betas.values()])[:-1]
    return dict(zip(betas, np.split(kept, ends, axis=-1), strict=True))
