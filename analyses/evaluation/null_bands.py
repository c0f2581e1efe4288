"""The random band: what ways of steering that carry no concept reach, by any statistic of their curves."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats
from scipy.special import ndtr

from analyses.evaluation.replicates import CONFIDENCE, Values

FEWEST_NULLS = 2


def nulls_of(trial: xr.Dataset | xr.DataArray, way: str) -> list[str]:
    """Return the names of the null ways of a way of steering."""
    of_way = trial["arm"].values[(trial["row"].values == way) & (trial["role"].values == "cell")]
    rows = trial["row"].values[(trial["role"].values == "null") & np.isin(trial["null_of"].values, of_way)]
    return list(dict.fromkeys(map(str, rows)))


def band(
    nulls: Iterable[Values], confidence: float = CONFIDENCE
) -> tuple[Float[np.ndarray, "*cells"], Float[np.ndarray, "*cells"]] | None:
    """Return the central part of the pooled bootstrap distributions of null ways' statistics.

    It covers the differences between null ways and the noise of each, and holds a further null way with at least the
    given confidence, also if there are few: each tail is set to that of Student's t prediction interval of one more
    from k, Phi(-sqrt((k + 1) / (k - 1)) t) with k - 1 degrees of freedom (as in `expanded_confidence`).

    Args:
        nulls: the statistic of each null way in every resample; NaN values are ignored.
        confidence: confidence level.

    Returns:
        The ends, or None with fewer than `FEWEST_NULLS`.
    """
    pooled = list(nulls)
    k = len(pooled)
    if k < FEWEST_NULLS:
        return None
    together = np.concatenate(pooled)
    tail = ndtr(-np.sqrt((k + 1) / (k - 1)) * stats.t.ppf((1 + confidence) / 2, k - 1))
    known = ~np.isnan(together).all(axis=0)
    low, high = np.full((2, *together.shape[1:]), np.nan)
    if known.any():
        low[known], high[known] = np.nanquantile(together[:, known], [tail, 1 - tail], axis=0)
    return low, high
