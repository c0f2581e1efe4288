"""Which way a descriptor differs between the two sides of a pair: what makes its changes in several pairs add up.

A judge scores all runs of a pair for the clean prompt's value, so that clean is above corrupt. A descriptor has no such
side: of two pairs of fast and slow songs, in which each is the clean prompt once, the onset rate rises in one and falls
in the other.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

_ROUNDING = 1e-9


def orientation(
    score: xr.DataArray,
    clean_value: Shaped[np.ndarray, "concept pair"],
    corrupt_value: Shaped[np.ndarray, "concept pair"],
    descriptors: Sequence[str],
) -> xr.DataArray:
    """Return the sign (concept, pair, scorer) by which scores are multiplied before impacts are computed from them.

    It is 1 for judges. For `descriptors`, it is 1 if the clean value has more of it than the corrupt value according to
    the *other* pairs, -1 if less, and NaN if they do not tell: a pair's own difference would make any noise positive.

    Args:
        score: raw scores (concept, pair, seed, arm, scorer).
        clean_value: the concept's value in each pair's clean prompt.
        corrupt_value: that in its corrupt prompt.
        descriptors: the scorers that are descriptors.
    """
    difference = (score.sel(arm="clean") - score.sel(arm="corrupt")).mean("seed")
    signs = xr.ones_like(difference.reset_coords(drop=True)).transpose("concept", "pair", "scorer")
    for c, concept in enumerate(score.concept.values):
        for descriptor in descriptors:
            place = {"concept": concept, "scorer": descriptor}
            signs.loc[place] = _signs(difference.sel(place).values, clean_value[c], corrupt_value[c])
    return signs


def _signs(
    difference: Float[np.ndarray, " pair"],
    clean_value: Shaped[np.ndarray, " pair"],
    corrupt_value: Shaped[np.ndarray, " pair"],
) -> Float[np.ndarray, " pair"]:
    """Return each pair's sign: of the difference of its values' effects, fitted to the other pairs' differences."""
    values = np.unique([clean_value, corrupt_value])
    design = (clean_value[:, None] == values).astype(float) - (corrupt_value[:, None] == values)
    known = ~np.isnan(difference)
    signs = np.full(len(difference), np.nan)
    for pair in range(len(difference)):
        others = known & (np.arange(len(difference)) != pair)
        if not others.any():
            continue
        effects = np.linalg.lstsq(design[others], difference[others], rcond=None)[0]
        expected = float(design[pair] @ effects)
        if abs(expected) > _ROUNDING * np.abs(difference[others]).max():
            signs[pair] = np.sign(expected)
    return signs
