"""Activations made of known features: SynthSAEBench-16k (arXiv 2602.14687), 32 times smaller.

An activation is the sum of the directions of the features that fire, each times its magnitude, and a bias. There are
more features than channels. Features fire with frequencies of a power law, and are correlated; two thirds of them are
in trees, in which a child fires only with its parent, and only one child of a parent at a time.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

FEATURES, CHANNELS = 512, 64
"""SynthSAEBench-16k has 16,384 and 768. Of a row, 5 features are active here, 34 there."""
ROOTS, CHILDREN, DEPTH = 4, 4, 3
"""Trees, children of a parent, and generations after the root; there 128 trees."""
EXPONENT, MOST_FREQUENT, LEAST_FREQUENT = 0.5, 0.4, 5e-4
RANK, CORRELATION = 25, 0.1
LARGEST_MEAN, SMALLEST_MEAN = 5.0, 4.0
SPREAD_MEAN, SPREAD_DEVIATION = 0.5, 0.5
BIAS = 0.5
SEPARATION_STEPS, SEPARATION_RATE = 100, 3e-4


class Family(NamedTuple):
    """The parents of one generation and their children."""

    parent: Int64[Tensor, " parent"]
    children: Int64[Tensor, "parent child"]


class PlantedFeatures(NamedTuple):
    """Everything that determines the distribution of activations; features are sorted by frequency."""

    directions: Float[Tensor, "feature channel"]  # unit norm
    bias: Float[Tensor, " channel"]
    families: tuple[Family, ...]  # from the roots down
    threshold: Float[Tensor, " feature"]  # of the normal variable that makes a feature fire
    shared: Float[Tensor, "feature rank"]  # of that variable, what features have in common
    own: Float[Tensor, " feature"]  # standard deviation of the rest
    mean: Float[Tensor, " feature"]  # of the magnitudes
    spread: Float[Tensor, " feature"]  # their standard deviation

    @classmethod
    def draw(cls, seed: int) -> "PlantedFeatures":
        """Draw features at random."""
        generator = torch.Generator().manual_seed(seed)
        shared = CORRELATION * torch.randn(FEATURES, RANK, generator=generator)
        directions = torch.randn(FEATURES, CHANNELS, generator=generator)
        bias = torch.randn(CHANNELS, generator=generator)
        spread = SPREAD_MEAN + SPREAD_DEVIATION * torch.randn(FEATURES, generator=generator)
        families = trees()
        chance = compensated(frequencies(FEATURES), families)
        return cls(
            directions=separated(directions / directions.norm(dim=1, keepdim=True)),
            bias=BIAS * bias / bias.norm(),
            families=families,
            threshold=2**0.5 * torch.erfinv(1 - 2 * chance),
            shared=shared,
            own=(1 - shared.square().sum(1)).clamp(min=0).sqrt(),
            mean=torch.linspace(LARGEST_MEAN, SMALLEST_MEAN, FEATURES),
            spread=spread.abs(),
        )

    def magnitudes(self, rows: int, generator: torch.Generator) -> Float[Tensor, "row feature"]:
        """Return the magnitudes of the features on random rows, 0 where they do not fire."""
        common = torch.randn(rows, RANK, generator=generator)
        variable = common @ self.shared.T + torch.randn(rows, FEATURES, generator=generator) * self.own
        values = (self.mean + torch.randn(rows, FEATURES, generator=generator) * self.spread).relu()
        values *= variable > self.threshold
        for family in self.families:
            values[:, family.children] = self._inherited(values, family, generator)
        return values

    def activations(self, magnitudes: Float[Tensor, "row feature"]) -> Float[Tensor, "row channel"]:
        """Return the activations with these magnitudes."""
        return magnitudes @ self.directions + self.bias

    def _inherited(
        self, values: Float[Tensor, "row feature"], family: Family, generator: torch.Generator
    ) -> Float[Tensor, "row parent child"]:
        """Return the children's magnitudes: of one child at most, and in proportion to the parent's."""
        children = values[:, family.children]
        lots = torch.rand(children.shape, generator=generator)
        chosen = one_of(children > 0, lots)
        parent = values[:, family.parent] / self.mean[family.parent]
        return children * chosen * parent[:, :, None]


def one_of(
    candidates: Bool[Tensor, "row parent child"], lots: Float[Tensor, "row parent child"]
) -> Bool[Tensor, "row parent child"]:
    """Return the candidate with the largest lot of each row and parent."""
    lots = torch.where(candidates, lots, -1)
    return candidates & (lots == lots.amax(2, keepdim=True))


def frequencies(features: int) -> Float[Tensor, " feature"]:
    """Return the power law of the ranks, moved and scaled to run from the largest to the smallest frequency."""
    law = torch.arange(1, features + 1) ** -EXPONENT
    return LEAST_FREQUENT + (MOST_FREQUENT - LEAST_FREQUENT) * (law - law[-1]) / (law[0] - law[-1])


def trees() -> tuple[Family, ...]:
    """Return the trees: the first features are the roots, then come their children, family by family, and so on."""
    families, parent, first = [], torch.arange(ROOTS), ROOTS
    for _ in range(DEPTH):
        children = torch.arange(first, first + CHILDREN * len(parent)).reshape(-1, CHILDREN)
        families.append(Family(parent, children))
        parent, first = children.flatten(), first + children.numel()
    return tuple(families)


def compensated(wanted: Float[Tensor, " feature"], families: tuple[Family, ...]) -> Float[Tensor, " feature"]:
    """Return the chances of firing with which features in trees come near their wanted frequencies.

    A child loses where its parent does not fire, and to the siblings that fire, too: it is given the inverse of the
    parent's frequency, times one plus the expected number of these siblings.
    """
    chance = wanted.clone()
    for family in families:
        of_parent, of_child = wanted[family.parent][:, None], wanted[family.children]
        siblings = of_child.sum(1, keepdim=True) - of_child
        chance[family.children] = of_child / of_parent * (1 + siblings / of_parent)
    return chance.clamp(max=1)


def separated(directions: Float[Tensor, "feature channel"]) -> Float[Tensor, "feature channel"]:
    """Return directions that overlap less: a few steps down the sum of their squared cosines."""
    moved = directions.clone().requires_grad_()
    optimiser = torch.optim.Adam([moved], lr=SEPARATION_RATE)
    for _ in range(SEPARATION_STEPS):
        optimiser.zero_grad()
        overlap = moved @ moved.T - torch.eye(len(moved))
        # Norms count as much as all overlaps of a feature together.
        loss = overlap.square().sum() + (len(moved) - 1) * overlap.diagonal().square().sum()
        loss.backward()
        optimiser.step()
    return (moved / moved.norm(dim=1, keepdim=True)).detach()
