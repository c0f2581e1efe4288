"""Null vectors from shuffled labels: the same pairs and fit, but with clean and corrupt exchanged in half of them."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import Field, SerializeAsAny

from analyses.steering.capture import Fit, GroupSums, Method, PairCapture, PairValues
from analyses.steering.descriptor import MeasuredClips
from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.seeds import Seed
from workbench.validation import must_be, validated


class Shuffled(Method):
    """A method, fitted to pairs of which a random half, rounded down, has clean and corrupt exchanged.

    Exchanging half of them cancels the concept. What is left is what a direction of so many pairs has by chance, with
    the length that it has by chance. Draw `number` does not depend on the other draws.
    """

    method: SerializeAsAny[Method]
    number: int = Field(0, ge=0)
    seed: Seed = 0

    @property
    def identity(self) -> dict[str, Any]:
        """Its draw, and what the method is."""
        return {"method": ["Shuffled", self.method.identity], "number": self.number, "seed": self.seed}

    def start(self, captured: PairCapture) -> Fit:
        """Start a fit; raise UserError for a single pair."""
        if captured.n_pairs < 2:
            raise UserError("Labels can be shuffled among at least 2 pairs; there is 1. Give more pairs.")
        order = np.random.default_rng((self.seed, self.number)).permutation(captured.n_pairs)
        name = f"shuffled {self.number} (like {captured.concept})"
        return _Exchanged(self.method.start(captured), order < captured.n_pairs // 2, name)


def shuffled(method: Method, n: int = 20, seed: int = 0) -> list[Method]:
    """Return methods that fit like `method`, each to pairs with other shuffled labels.

    Give them to `fit` together with the method itself: the pairs are generated once.

    Raises:
        UserError: if `n` is below 1, or the seed is not from 0 to 2⁶⁴ - 1.
    """
    must_be(Method, method, "A method to shuffle labels for must be one such as CAA() or AUSteer(k=64)")
    drawn = validated(_Drawn, {"n": n, "seed": seed}, "Invalid shuffles")
    return [Shuffled(method=method, number=number, seed=drawn.seed) for number in range(drawn.n)]


def shuffled_clips(measured: MeasuredClips, n: int = 20, seed: int = 0) -> list[MeasuredClips]:
    """Return clips whose values of the descriptor are shuffled, for null vectors of a descriptor.

    Raises:
        UserError: if `n` is below 1, or the seed is not from 0 to 2⁶⁴ - 1.
    """
    must_be(MeasuredClips, measured, "Clips to shuffle must be those of measured_clips")
    drawn = validated(_Drawn, {"n": n, "seed": seed}, "Invalid shuffles")
    return [
        replace(
            measured,
            descriptor=f"shuffled {number} (like {measured.descriptor})",
            values=np.random.default_rng((drawn.seed, number)).permutation(measured.values),
        )
        for number in range(drawn.n)
    ]


@dataclass(frozen=True)
class _Drawn:
    n: Annotated[int, Field(ge=1)]
    seed: Seed


class _Exchanged:
    """A fit to which the clean and corrupt outputs of some pairs are given the other way round."""

    def __init__(self, fit: Any, exchanged: Bool[np.ndarray, " pair"], name: str) -> None:
        self._fit = fit
        self._exchanged = exchanged
        self._name = name

    @property
    def sums(self) -> list[GroupSums]:
        return list(self._fit.sums)

    def add(self, values: PairValues) -> None:
        of_batch = self._exchanged[values.first : values.first + len(values.clean)]
        flags = torch.from_numpy(of_batch).to(values.clean.device)[:, None, None, None]
        clean, corrupt = (
            torch.where(flags, other, own)
            for own, other in ((values.clean, values.corrupt), (values.corrupt, values.clean))
        )
        self._fit.add(replace(values, clean=clean, corrupt=corrupt))

    def vector(self) -> Vector:
        return replace(self._fit.vector(), concept=self._name)
