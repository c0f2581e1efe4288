"""The recovery ladder: how much of a concept comes back on each step from a patch to a fixed vector.

A hot map does not mean that a vector steers. From rung to rung one thing is given up: the exact conditioning, the exact
output, the time course of its difference, the same pair. Two prompts differ first at the same latents, then at those of
their own runs. The last rungs are features of sparse autoencoders, other ways of steering, and random vectors of the
same norms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from analyses.steering.nulls import random_vectors
from analyses.steering.run import Way
from analyses.steering.sae_features import SAEFeatures
from analyses.steering.slider import Slider
from analyses.steering.vector import Vector
from workbench.engine.edits import Edit, Run, add_difference, patch, patch_reconstruction
from workbench.engine.sites import Site
from workbench.sae.base import SAE

WHOLE = (1.0,)
"""The strength of a patch, which is there or not."""
SAME_LATENTS = " (same latents)"
"""End of the names of rungs whose prompts are compared at the latents of the positive run."""
FEATURES = 10
"""Features of either end at each site, pass and step in the rung of SAE features, if there are as many."""


def ladder(
    vector: Vector,
    saes: Mapping[str, SAE] = MappingProxyType({}),
    features: Vector | None = None,
    others: Sequence[tuple[str, Vector | Slider]] = (),
    randoms: int = 20,
    seed: int = 0,
    same: Vector | None = None,
) -> list[Way]:
    """Return the rungs of the ladder at a vector's sites, as ways of steering.

    The outputs are patched, and differences and vectors added, in the conditional pass; the conditioning is patched in
    all passes. Strengths are multiples of the mean difference.

    Args:
        vector: the vector; if it has a direction for each token, its mean over time is a rung of its own.
        saes: sparse autoencoders of some of the sites, through which the outputs are patched on a rung.
        features: directions of their features (see `sae_method`), which get the norms of the vector.
        others: further vectors and sliders, with their names.
        randoms: number of random vectors like the vector.
        seed: seed of the random vectors.
        same: the vector of the same pairs at the latents of the positive run, for rungs of such differences.
    """
    sites = list(vector.directions)
    rungs = []
    if all(Site.parse(site).part == "cross_attn" for site in sites):
        rungs.append(Way("conditioning patch", lambda _: [patch(sites, "positive")], WHOLE))
    rungs.append(
        Way("output patch", lambda _: [patch(sites, "positive", target="output", passes=("cond",))], WHOLE)
    )
    if saes:
        name = f"SAE reconstruction{_where(saes, sites)}"
        rungs.append(Way(name, lambda _: _reconstructed(saes, sites), WHOLE))
    if same is not None:
        rungs += _differences(sites, same, SAME_LATENTS, follows=Run("positive"))
    rungs += _differences(sites, vector)
    if features is not None:
        rungs.append(
            Way(
                f"SAE features{_where(features.directions, sites)}",
                as_long_as(features, vector.over_time()).at,
            )
        )
    rungs += [
        Way(f"{'pack' if isinstance(each, Vector) else 'slider'} {name}", each.at) for name, each in others
    ]
    return [*rungs, *nulls("vector", vector.over_time(), randoms, seed)]


def sae_method(saes: Mapping[str, SAE], ignore_gate: bool = False) -> SAEFeatures:
    """Return the method of the rung of SAE features: from those of the negative values to those of the positive one."""
    k = min(FEATURES, *(sae.config.d_sae for sae in saes.values()))
    return SAEFeatures(saes=saes, k=k, contrastive=True, ignore_gate=ignore_gate)


def as_long_as(vector: Vector, other: Vector) -> Vector:
    """Return a vector with the norms of another at each of its sites, passes and steps.

    The norm of a sum of decoder rows says how many features there are, not how far the concept moves them.
    """
    own = vector.norms
    directions = {
        site: array * _ratio(other.norms[site], own[site]).rename(site)
        for site, array in vector.directions.items()
    }
    return replace(vector, directions=directions, unit=f"{vector.unit}, with other norms", raw_norms=own)


def nulls(name: str, vector: Vector, n: int, seed: int, **how: Any) -> list[Way]:
    """Return random vectors like a vector as nulls of the way of steering called `name`; `how` are options of `at`."""
    drawn = random_vectors(vector, n, seed) if n else []
    return [
        Way(f"random {k} (like {name})", partial(random.at, **how), null_of=name)
        for k, random in enumerate(drawn, 1)
    ]


def _where(some: Mapping[str, Any], sites: Sequence[str]) -> str:
    """Return where something is, as the end of a name: "" at all sites, else such as " at tf4"."""
    if set(sites) <= set(some):
        return ""
    parsed = [Site.parse(site) for site in sites if site in some]
    parts = {f".{site.part}" for site in parsed} - {".cross_attn"}
    return f" at {'+'.join(f'tf{site.block}' for site in parsed)}{''.join(parts)}"


def _ratio(wanted: xr.DataArray, own: xr.DataArray) -> xr.DataArray:
    """Return the quotient of norms, 0 where there is no direction."""
    return xr.zeros_like(own).copy(data=np.divide(wanted, own, out=np.zeros(own.shape), where=own.values > 0))


def _reconstructed(saes: Mapping[str, SAE], sites: Sequence[str]) -> list[Edit]:
    """Return patches of the outputs, through the autoencoders of the sites that have one."""
    return [
        patch_reconstruction(saes[site], site, "positive", passes=("cond",))
        if site in saes
        else patch(site, "positive", target="output", passes=("cond",))
        for site in sites
    ]


def _differences(
    sites: Sequence[str], vector: Vector, where: str = "", follows: Run | None = None
) -> list[Way]:
    """Return the rungs of the difference of the same pair and of the vector, by token and as means over time.

    The negative run `follows` the positive one, if they are compared at the same latents; `where` ends the names.
    """

    def difference(strength: float, constant: bool = False) -> list[Edit]:
        negative = Run("negative", follows=follows)
        return [add_difference(sites, "positive", negative, strength, constant=constant, passes=("cond",))]

    rungs = [
        Way(f"same-pair difference{where}", difference),
        Way(f"same-pair mean over time{where}", partial(difference, constant=True)),
    ]
    constant = vector.over_time()
    if constant is not vector:
        rungs.append(Way(f"vector by token{where}", vector.at))
    return [*rungs, Way(f"vector{where}", constant.at)]
