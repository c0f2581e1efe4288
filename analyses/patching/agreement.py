"""Agreement of judges: whether their maps of the same clips rank the cells in the same way."""

from itertools import combinations

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.patching.impact import CONFIDENCE, DIMS, fraction, gain_and_rest, totals
from analyses.statistics import cluster_interval, rank_correlation

OF_SCORERS = ("agreement", "agreement_lo", "agreement_hi")
_DECIMALS = 9  # impacts that differ by rounding only are equal


def agreement(
    score: xr.DataArray,
    impacts: xr.DataArray,
    resolution: float,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> xr.Dataset:
    """Compute the rank correlation of each two scorers' maps of a concept, with its interval over pairs.

    It is Spearman's, over the cells of which both have an impact, computed from the pairs that both have scored.
    Impacts are floored at 0, as the paper's are: otherwise cells without an effect would be ranked by their noise, some
    of them below cells that cannot have any.

    Args:
        score: scores as `impact` takes them.
        impacts: impacts (concept, arm, scorer) of the same scores, NaN where undefined.
        resolution: as in `impact`.
        confidence: confidence level of the intervals.
        seed: seed of the bootstrap.

    Returns:
        By (concept, scorer, scorer_b): `agreement`, `agreement_lo`, `agreement_hi` (percentile bootstrap over whole
        pairs, which both maps share), NaN for fewer than three cells, maps of equal impacts, or one pair;
        `agreement_cells` and `agreement_pairs`, the numbers of cells and pairs.
    """
    score = score.transpose(*DIMS)
    gain, rest = gain_and_rest(score, resolution)
    is_cell = (score.role == "cell").values
    known = impacts.transpose("concept", "arm", "scorer").notnull().values & is_cell[:, None]
    shape = (score.sizes["concept"], score.sizes["scorer"], score.sizes["scorer"])
    found = {name: np.full(shape, np.nan) for name in OF_SCORERS}
    counts = {name: np.zeros(shape, dtype=int) for name in ("agreement_cells", "agreement_pairs")}
    for c, (a, b) in ((c, each) for c in range(shape[0]) for each in _each_two(shape[1])):
        cells = known[c, :, a] & known[c, :, b]
        parts = [totals(part.values[c, ..., s][..., cells]) for s in (a, b) for part in (gain, rest)]
        pairs = ~np.isnan(parts[0]).all(axis=1) & ~np.isnan(parts[2]).all(axis=1)
        numbers = _correlation([part[pairs] for part in parts], confidence, seed)
        for places in ((c, a, b), (c, b, a)):
            for name, number in zip(OF_SCORERS, numbers, strict=True):
                found[name][places] = number
            counts["agreement_cells"][places] = cells.sum()
            counts["agreement_pairs"][places] = pairs.sum()
    coords = {"concept": score.concept.values, "scorer": score.scorer.values, "scorer_b": score.scorer.values}
    dims = ("concept", "scorer", "scorer_b")
    return xr.Dataset({name: (dims, values) for name, values in (found | counts).items()}, coords)


def _each_two(n: int) -> list[tuple[int, int]]:
    """Return all pairs of numbers below `n`, and each number with itself."""
    return [*combinations(range(n), 2), *((s, s) for s in range(n))]


def _correlation(
    parts: list[Float[np.ndarray, "pair cell"]], confidence: float, seed: int
) -> tuple[float, float, float]:
    """Return the rank correlation of two maps, from gain and rest of the one and of the other, with its interval."""

    def statistic(*sums: np.ndarray) -> np.ndarray:
        impacts = (fraction(*sums[place : place + 2]).clip(min=0) for place in (0, 2))
        return rank_correlation(*(np.round(impact, _DECIMALS) for impact in impacts))

    return cluster_interval(tuple(map(np.nan_to_num, parts)), statistic, confidence, seed)
