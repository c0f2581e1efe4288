"""The random band: what ways of steering that carry no concept reach, by any statistic of their curves."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from analyses.evaluation.replicates import CONFIDENCE

FEWEST_NULLS = 3

Nulls = Float[np.ndarray, "null *cells"]
"""A statistic of every null way, by cell."""


def nulls_of(trial: xr.Dataset | xr.DataArray, way: str) -> list[str]:
    """Return the names of the null ways of a way of steering."""
    of_way = trial["arm"].values[(trial["row"].values == way) & (trial["role"].values == "cell")]
    rows = trial["row"].values[(trial["role"].values == "null") & np.isin(trial["null_of"].values, of_way)]
    return list(dict.fromkeys(map(str, rows)))


def band(
    nulls: Nulls, confidence: float = CONFIDENCE
) -> tuple[Float[np.ndarray, "*cells"], Float[np.ndarray, "*cells"]]:
    """Return the prediction interval of one more null way's statistic on the same pairs.

    With the mean m and standard deviation s of k null ways it is m ± t s √(1 + 1/k), with Student's t of k - 1 degrees
    of freedom: exact if null ways are normally distributed, however much they differ from one another.

    Args:
        nulls: the statistic of each null way; those that are NaN, because the way does not get there, do not count.
        confidence: confidence level.

    Returns:
        The ends; NaN with fewer than `FEWEST_NULLS`.
    """
    known = ~np.isnan(nulls)
    k = known.sum(axis=0)
    enough = np.maximum(k, FEWEST_NULLS)
    mean = np.where(known, nulls, 0).sum(axis=0) / enough
    variance = (np.where(known, nulls - mean, 0) ** 2).sum(axis=0) / (enough - 1)
    half = stats.t.ppf((1 + confidence) / 2, enough - 1) * np.sqrt(variance * (1 + 1 / enough))
    low, high = (np.where(k >= FEWEST_NULLS, end, np.nan) for end in (mean - half, mean + half))
    return low, high
