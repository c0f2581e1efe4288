"""The recovery ladder: how much of a concept comes back on each step from a patch to a fixed vector.

A hot map does not mean that a vector steers. From rung to rung one thing is given up: the exact conditioning, the exact
output, the time course of its difference, the same pair. The last rungs are random vectors of the same norms.
"""

from collections.abc import Sequence

from analyses.steering.nulls import random_vectors
from analyses.steering.run import Way
from analyses.steering.vector import Vector
from workbench.engine.edits import Edit, add_difference, patch
from workbench.engine.sites import Site

WHOLE = (1.0,)
"""The strength of a patch, which is there or not."""


def ladder(
    vector: Vector, others: Sequence[tuple[str, Vector]] = (), randoms: int = 20, seed: int = 0
) -> list[Way]:
    """Return the rungs of the ladder at a vector's sites, as ways of steering.

    The outputs are patched, and differences and vectors added, in the conditional pass; the conditioning is patched in
    all passes. Strengths are multiples of the mean difference.

    Args:
        vector: the vector; if it has a direction for each token, its mean over time is a rung of its own.
        others: further vectors, with the names of their rungs, such as one of autoencoder features.
        randoms: number of random vectors like the vector.
        seed: seed of the random vectors.
    """
    sites = list(vector.directions)
    rungs = []
    if all(Site.parse(site).part == "cross_attn" for site in sites):
        rungs.append(Way("conditioning patch", lambda _: [patch(sites, "positive")], WHOLE))
    rungs += [
        Way("output patch", lambda _: [patch(sites, "positive", target="output", passes=("cond",))], WHOLE),
        Way("difference of the same pair", lambda strength: [_difference(sites, strength)]),
        Way("its mean over time", lambda strength: [_difference(sites, strength, constant=True)]),
    ]
    constant = vector.over_time()
    if constant is not vector:
        rungs.append(Way("vector by token", vector.at))
    rungs.append(Way("vector", constant.at))
    rungs += [Way(name, other.at) for name, other in others]
    return [*rungs, *nulls("vector", constant, randoms, seed)]


def nulls(name: str, vector: Vector, n: int, seed: int) -> list[Way]:
    """Return random vectors like a vector as nulls of the way of steering called `name`."""
    drawn = random_vectors(vector, n, seed) if n else []
    return [Way(f"random {k} (like {name})", random.at, null_of=name) for k, random in enumerate(drawn, 1)]


def _difference(sites: Sequence[str], strength: float, constant: bool = False) -> Edit:
    return add_difference(sites, "positive", "negative", strength, constant=constant, passes=("cond",))
