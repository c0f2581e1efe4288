"""The random band: what ways of steering that carry no concept reach, by any statistic of their curves."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.evaluation.replicates import CONFIDENCE, Values


def nulls_of(trial: xr.Dataset | xr.DataArray, way: str) -> list[str]:
    """Return the names of the null ways of a way of steering."""
    of_way = trial["arm"].values[(trial["row"].values == way) & (trial["role"].values == "cell")]
    rows = trial["row"].values[(trial["role"].values == "null") & np.isin(trial["null_of"].values, of_way)]
    return list(dict.fromkeys(map(str, rows)))


def band(
    nulls: Iterable[Values], confidence: float = CONFIDENCE
) -> tuple[Float[np.ndarray, "*cells"], Float[np.ndarray, "*cells"]] | None:
    """Return the central part of the pooled bootstrap distributions of null ways' statistics, or None without any.

    It covers the differences between null ways and the noise of each. NaN values are ignored.
    """
    pooled = [values for values in nulls if values.size]
    if not pooled:
        return None
    together = np.concatenate(pooled)
    tail = (1 - confidence) / 2
    known = ~np.isnan(together).all(axis=0)
    low, high = np.full((2, *together.shape[1:]), np.nan)
    low[known], high[known] = np.nanquantile(together[:, known], [tail, 1 - tail], axis=0)
    return low, high
