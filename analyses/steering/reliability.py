"""Reliability of a direction: would other pairs have given the same one?"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from analyses.statistics import halvings
from cache.protocol import Pass

GROUPS = 10
"""Groups of pairs that are kept apart, to compare directions of some of them with those of others."""
HALVINGS = 500
REFITS = 100
"""Halvings for directions that are not means of differences, which must be computed again for each."""
CONFIDENCE = 0.95
EXACT = 1e-6
"""Cosines this close to 1 are of equal directions, to rounding."""
_BY_STEP = ("site", "pass", "step")
VARIABLES = {
    "split_half": _BY_STEP,
    "split_half_lo": _BY_STEP,
    "split_half_hi": _BY_STEP,
    "learning": (*_BY_STEP, "pairs"),
    "steps": (*_BY_STEP, "step_b"),
}
"""Variables of a reliability, with their dims."""

Refit = Callable[[Bool[np.ndarray, " group"]], Mapping[str, Float[np.ndarray, "pass step *token channel"]]]
"""Returns the directions by site of some groups of pairs."""


def reliability(
    sums: Mapping[str, Float[np.ndarray, "group pass step *token channel"]],
    passes: Sequence[Pass],
    n_pairs: int,
    seed: int = 0,
) -> xr.Dataset:
    """Compare directions from disjoint sets of pairs, by their cosine over all tokens and channels.

    Args:
        sums: by site, the sum of the pairs' differences in each of several groups of pairs of nearly equal size.
        passes: the passes, in order.
        n_pairs: number of pairs in all groups together.
        seed: seed of the random draws.

    Returns:
        By (site, pass, step): `split_half`, `split_half_lo`, `split_half_hi` (mean and central 95 % of the cosine of
        the directions of two halves of the groups, over random halvings; the direction of all pairs is closer to the
        true one). By (site, pass, step, pairs): `learning`, the mean cosine of the directions of two disjoint sets of
        so many pairs each. By (site, pass, step, step_b): `steps`, the cosine of the directions of two steps. NaN for a
        direction that is zero, for all but `steps` of fewer than two groups, and for the interval of two groups, which
        have a single halving.
    """
    of_sites = [_of_site(values, seed) for values in sums.values()]
    n_groups = len(next(iter(sums.values())))
    pairs = [round(size * n_pairs / n_groups) for size in _sizes(n_groups)]
    arrays = {name: np.stack([of_site[name] for of_site in of_sites]) for name in VARIABLES}
    return as_dataset(arrays, list(sums), passes, pairs)


def reliability_of_refits(
    refit: Refit, n_groups: int, passes: Sequence[Pass], n_pairs: int, draws: int = REFITS, seed: int = 0
) -> xr.Dataset:
    """Compare directions as `reliability` does, for a method whose directions are not means of differences.

    Args:
        refit: returns the directions by site of the groups of pairs that are True.
        n_groups: number of groups of nearly equal size.
        passes: the passes, in order.
        n_pairs: number of pairs in all groups together.
        draws: halvings, and draws of smaller sets; all but `steps` is NaN for none.
        seed: seed of the random draws.

    Returns:
        The same as `reliability`.
    """
    every = refit(np.ones(n_groups, dtype=bool))
    steps = np.stack([_cosines_of_steps(values) for values in every.values()])
    sizes = _sizes(n_groups)
    arrays = {
        name: np.full((*steps.shape[:3], *([len(sizes)] if name == "learning" else [])), np.nan)
        for name in VARIABLES
    }
    if draws and sizes:
        halves = halvings(n_groups, draws, seed).astype(bool)
        order = np.random.default_rng(seed).permuted(np.tile(np.arange(n_groups), (draws, 1)), axis=1)
        arrays |= _split_half(_compared(refit, halves, ~halves), n_groups)
        for place, size in enumerate(sizes):
            cosines = _compared(refit, order < size, (order >= size) & (order < 2 * size))
            arrays["learning"][..., place] = cosines.mean(axis=-1)
    pairs = [round(size * n_pairs / n_groups) for size in sizes]
    return as_dataset({**arrays, "steps": steps}, list(every), passes, pairs)


def cosine_with_truth(split_half: xr.DataArray) -> xr.DataArray:
    """Estimate the cosine of the direction of all pairs with that of endlessly many: √(2r / (1 + r)), of halves' r.

    The Spearman–Brown formula gives the cosine of two directions of all pairs, and its root that of one with the truth.
    NaN for an r that is not positive.
    """
    positive = split_half.where(split_half > 0)
    return (2 * positive / (1 + positive)) ** 0.5


def cosine_in_words(cosine: float) -> str:
    """Format a cosine with 3 significant digits; one below 1 is never rounded to 1."""
    rounded = f"{cosine:.3g}"
    return "> 0.999" if rounded == "1" and cosine < 1 - EXACT else rounded


def unknown_reliability(sites: Sequence[str], passes: Sequence[Pass], n_steps: int) -> xr.Dataset:
    """Return the reliability of directions whose pairs are unknown: NaN."""
    sizes = {"site": len(sites), "pass": len(passes), "step": n_steps, "step_b": n_steps, "pairs": 0}
    arrays = {name: np.full([sizes[dim] for dim in dims], np.nan) for name, dims in VARIABLES.items()}
    return as_dataset(arrays, sites, passes, [])


def as_dataset(
    arrays: Mapping[str, np.ndarray], sites: Sequence[str], passes: Sequence[Pass], pairs: Sequence[int]
) -> xr.Dataset:
    """Return the arrays of `reliability` with their labels; raise ValueError if they do not fit together."""
    if set(arrays) != set(VARIABLES):
        raise ValueError(f"its reliability does not have {', '.join(VARIABLES)}")
    if any(array.dtype.kind != "f" or array.ndim != len(VARIABLES[name]) for name, array in arrays.items()):
        raise ValueError("its reliability does not have numbers by site, pass and step")
    steps = range(arrays["steps"].shape[-1])
    coords = {"site": list(sites), "pass": list(passes), "step": steps, "step_b": steps, "pairs": list(pairs)}
    return xr.Dataset({name: (dims, arrays[name]) for name, dims in VARIABLES.items()}, coords)


def _sizes(n_groups: int) -> range:
    """Return the numbers of groups of which two disjoint sets can be drawn."""
    return range(1, n_groups // 2 + 1)


def _of_site(sums: Float[np.ndarray, "group pass step *token channel"], seed: int) -> dict[str, np.ndarray]:
    flat = sums.reshape(*sums.shape[:3], -1)
    n_groups = len(flat)
    # Inner products of the groups' sums: all cosines of sums over groups follow from them.
    products = np.einsum("gpsc,hpsc->psgh", flat, flat)
    halves = halvings(n_groups, HALVINGS, seed)
    of_halves = _cosines(products, halves, 1 - halves)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(n_groups), (HALVINGS, 1)), axis=1)
    learning = np.empty((*flat.shape[1:3], len(_sizes(n_groups))))
    for place, size in enumerate(_sizes(n_groups)):
        learning[..., place] = _cosines(products, order < size, (order >= size) & (order < 2 * size)).mean(
            axis=-1
        )
    return {
        **_split_half(of_halves, n_groups),
        "learning": learning,
        "steps": _cosines_of_steps(sums.sum(axis=0)),
    }


def _split_half(cosines: Float[np.ndarray, "*cell draw"], n_groups: int) -> dict[str, np.ndarray]:
    """Return the mean and the central 95 % of the cosines of two halves over the draws.

    Two groups have a single halving, which has no interval.
    """
    mean, tail = cosines.mean(axis=-1), (1 - CONFIDENCE) / 2
    if n_groups == 2:
        low = high = np.full_like(mean, np.nan)
    else:
        low, high = np.quantile(cosines, (tail, 1 - tail), axis=-1)
    return {"split_half": mean, "split_half_lo": low, "split_half_hi": high}


def _cosines_of_steps(
    directions: Float[np.ndarray, "pass step *token channel"],
) -> Float[np.ndarray, "pass step step"]:
    flat = directions.reshape(*directions.shape[:2], -1)
    with np.errstate(invalid="ignore"):
        unit = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
    return np.einsum("psc,ptc->pst", unit, unit)


def _compared(
    refit: Refit, ones: Bool[np.ndarray, "draw group"], others: Bool[np.ndarray, "draw group"]
) -> Float[np.ndarray, "site pass step draw"]:
    """Return the cosines between the directions of the groups in `ones` and in `others`."""
    return np.stack(
        [_cosines_by_site(refit(one), refit(other)) for one, other in zip(ones, others, strict=True)], axis=-1
    )


def _cosines_by_site(
    directions: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> Float[np.ndarray, "site pass step"]:
    cosines = []
    for site, values in directions.items():
        one, other = (each.reshape(*values.shape[:2], -1) for each in (values, others[site]))
        sizes = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
        with np.errstate(invalid="ignore"):
            cosines.append((one * other).sum(axis=-1) / sizes)
    return np.stack(cosines)


def _cosines(
    products: Float[np.ndarray, "pass step group group"], one: np.ndarray, other: np.ndarray
) -> Float[np.ndarray, "pass step draw"]:
    """Return the cosine between the sums over the groups in `one` and in `other`, which have dims (draw, group)."""
    a, b = one.astype(float), other.astype(float)

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.einsum("xg,psgh,xh->psx", left, products, right, optimize=True)

    with np.errstate(invalid="ignore", divide="ignore"):
        return product(a, b) / np.sqrt(product(a, a) * product(b, b))
