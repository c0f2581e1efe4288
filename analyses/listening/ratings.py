"""Mean ratings of conditions: with intervals over listeners, and by a mixed model of listeners and items."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from analyses.statistics import cluster_bootstrap

Means = Float[np.ndarray, " condition"]


class Interval(NamedTuple):
    """A value of each condition with the ends of its interval; NaN where it could not be computed."""

    value: Means
    low: Means
    high: Means


def mean_ratings(
    ratings: pd.DataFrame, conditions: tuple[str, ...], confidence: float, seed: int
) -> Interval:
    """Return mean ratings with BCa bootstrap intervals over whole listeners, who count equally by rating."""
    totals = _by_listener(ratings, conditions, "sum")
    counts = _by_listener(ratings, conditions, "count")
    boot = cluster_bootstrap((totals, counts), lambda total, count: total / count, confidence, seed=seed)
    return Interval(boot.value, boot.low, boot.high)


def modelled_means(ratings: pd.DataFrame, conditions: tuple[str, ...], confidence: float) -> Interval:
    """Return means by a linear mixed model with random intercepts of listeners and of items, crossed.

    `rating ~ condition + (1 | listener) + (1 | item)`, by restricted maximum likelihood (statsmodels' MixedLM);
    intervals of the fixed effects are normal. NaN if the model cannot be fitted, as with one listener or constant
    ratings, and for conditions without ratings.
    """
    from analyses import mixed_models  # slow to import

    means = Interval(*np.full((3, len(conditions)), np.nan))
    rated = [name for name in conditions if (ratings["condition"] == name).any()]
    if ratings["listener"].nunique() < 2 or ratings["rating"].nunique() < 2:
        return means
    table = ratings.assign(condition=pd.Categorical(ratings["condition"], categories=rated), everyone=1)
    crossed = {"listener": "0 + C(listener)", "item": "0 + C(item)"}
    model = mixed_models.BoundedMixedLM.from_formula(
        "rating ~ 0 + condition", table, groups="everyone", vc_formula=crossed, re_formula="0"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 is on the boundary, and an answer
        try:
            fitted = mixed_models.fit(model)
        except (np.linalg.LinAlgError, ValueError):
            return means
    places = [conditions.index(name) for name in rated]
    half = stats.norm.ppf((1 + confidence) / 2) * np.asarray(fitted.bse_fe)
    value = np.asarray(fitted.fe_params)
    for array, values in zip(means, (value, value - half, value + half), strict=True):
        array[places] = values
    return means


def _by_listener(
    ratings: pd.DataFrame, conditions: tuple[str, ...], function: str
) -> Float[np.ndarray, "listener condition"]:
    """Return sums or numbers of ratings; 0 where a listener did not rate a condition."""
    table = ratings.pivot_table("rating", "listener", "condition", aggfunc=function, fill_value=0)
    return table.reindex(columns=list(conditions), fill_value=0).to_numpy(dtype=float)
