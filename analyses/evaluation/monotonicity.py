"""Monotonicity of a dose-response curve: how many steps of strength go the wrong way."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.dose_curves import arms_of
from analyses.evaluation.replicates import CONFIDENCE, Interval, Replicates


def violations(
    change: xr.DataArray, way: str, sign: str, tie: Float[np.ndarray, " scorer"], replicates: Replicates
) -> Interval:
    """Return the share of steps of strength that go the wrong way by more than a tie, over pairs and steps.

    A step is from one strength to the next one, or from the unsteered run to the first, in a pair's mean over its
    seeds. Noise alone goes the wrong way in half of the steps, so that 0 is good and .5 is nothing. A way whose steps
    are all ties changes nothing, which is no order: it has NaN.

    Args:
        change: changes of scores, with dims pair, seed, arm and scorer.
        way: the way of steering.
        sign: "positive" or "negative".
        tie: a step of at most this much goes neither way.
        replicates: of the pairs.

    Returns:
        By scorer, with the percentile interval over pairs; if no two pairs differ, with the exact interval of as many
        independent pairs (Clopper and Pearson 1934). NaN for a way all of whose steps are ties.
    """
    arms = arms_of(change, way, sign)
    of_pair = SIGNS[sign] * change.sel(arm=arms).mean("seed").transpose("pair", "arm", "scorer").values
    steps = np.diff(of_pair, axis=1)
    wrong = np.where(np.isnan(steps), np.nan, steps < -tie)
    n = (~np.isnan(steps)).any(axis=1).sum(axis=0)
    moved = replicates.means(np.where(np.isnan(steps), np.nan, np.abs(steps) > tie)) > 0
    found = replicates.interval(np.where(moved, replicates.means(wrong), np.nan), n, corrected=False)
    low, high = (np.array(end) for end in (found.low, found.high))
    for scorer in np.flatnonzero((low == high) & (n > 1)):
        exact = stats.binomtest(round(found.value[scorer] * n[scorer]), int(n[scorer])).proportion_ci(
            CONFIDENCE
        )
        low[scorer], high[scorer] = exact.low, exact.high
    return Interval(found.value, low, high)
