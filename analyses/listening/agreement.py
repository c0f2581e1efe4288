"""How much listeners agree: Krippendorff's alpha, with an interval over listeners."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

Level = Literal["nominal", "ordinal", "interval"]
Table = Float[np.ndarray, "listener unit"]


class Agreement(NamedTuple):
    """Krippendorff's alpha and its interval; 1 is perfect agreement, 0 is what chance gives."""

    alpha: float
    low: float
    high: float


def agreement(table: Table, level: Level, confidence: float) -> Agreement:
    """Return Krippendorff's alpha of listeners, and its jackknife interval over listeners.

    Listeners are left out one by one rather than drawn with replacement: a listener who is drawn twice would agree with
    themselves. The interval is Student's, of pseudo-values.

    Args:
        table: answers, NaN where a listener did not answer.
        level: the scale of measurement.
        confidence: the confidence level.

    Returns:
        Alpha; NaN for fewer than two listeners, or if all answers are the same. The interval is NaN for fewer than
            three.
    """
    n = len(table)
    whole = _alpha(table, level)
    if n < 3:
        return Agreement(whole, float("nan"), float("nan"))
    without = np.array([_alpha(np.delete(table, place, axis=0), level) for place in range(n)])
    pseudo = n * whole - (n - 1) * without
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * pseudo.std(ddof=1) / np.sqrt(n)
    return Agreement(whole, float(whole - half), float(min(whole + half, 1.0)))


def answers_table(answers: pd.DataFrame, units: list[str], value: str) -> Table:
    """Return answers as a table of listeners and units, which are named by the columns `units`."""
    return answers.pivot_table(value, "listener", units, aggfunc="first").to_numpy(dtype=float)


def _alpha(table: Table, level: Level) -> float:
    import krippendorff

    known = table[:, (~np.isnan(table)).sum(axis=0) > 1]  # a unit of one listener tells nothing
    if known.size == 0 or len(np.unique(known[~np.isnan(known)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=known, level_of_measurement=level))
