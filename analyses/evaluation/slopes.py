"""Slopes of dose-response curves: by a linear mixed model, and by a bootstrap of whole pairs as a check."""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from analyses.evaluation.replicates import CONFIDENCE

CONVERGED = "converged"
SINGULAR = "singular"
NOT_CONVERGED = "not converged"
TOO_FEW = "too few pairs or strengths"
LEAST_PAIRS = 3
LEAST_VARIANCE = 1e-6
"""A component of the variance below this part of the scores' variance is estimated as none: the fit is singular."""


class MixedSlope(NamedTuple):
    """Slope per unit of strength by the mixed model, its standard error and interval, and how the fit ended."""

    value: float
    standard_error: float
    low: float
    high: float
    status: str


def mixed_slope(
    strength: Float[np.ndarray, " dose"],
    score: Float[np.ndarray, "pair seed dose"],
    confidence: float = CONFIDENCE,
) -> MixedSlope:
    """Fit score = a + b strength by restricted maximum likelihood, with random a and b of each pair and a of each seed.

    The random slope is always kept: without it, pairs that respond differently would make the interval too narrow (Barr
    et al. 2013). The variance of seeds within pairs is left out if it is estimated as none. The interval is that of
    Student's t with one degree of freedom fewer than pairs, which is exact in balanced designs with normal effects.

    Args:
        strength: strengths, with that of the unsteered run.
        score: scores; rows with NaN are left out.
        confidence: confidence level.

    Returns:
        The slope; NaN, with the status, where the model cannot be fitted. A singular or unconverged fit is reported,
        but its interval is not to be used.
    """
    known = ~np.isnan(score)
    n = int(known.any(axis=(1, 2)).sum())
    if n < LEAST_PAIRS or len(np.unique(strength)) < 2 or np.ptp(score[known]) == 0:
        return MixedSlope(*(np.nan,) * 4, TOO_FEW if n < LEAST_PAIRS or len(strength) < 2 else SINGULAR)
    found = MixedSlope(*(np.nan,) * 4, NOT_CONVERGED)
    for with_seeds in (True, False) if (known.any(axis=2).sum(axis=1) > 1).any() else (False,):
        found = _fitted(strength, score, known, n, with_seeds, confidence)
        if found.status == CONVERGED:
            break
    return found


def ols_slope(
    strength: Float[np.ndarray, " dose"], change: Float[np.ndarray, "replicate dose scorer"]
) -> Float[np.ndarray, "replicate scorer"]:
    """Return the slope of the ordinary least-squares line through each mean curve."""
    centred = strength - strength.mean()
    return np.moveaxis(change, 1, -1) @ (centred / (centred @ centred))


def _fitted(
    strength: Float[np.ndarray, " dose"],
    score: Float[np.ndarray, "pair seed dose"],
    known: np.ndarray,
    n: int,
    with_seeds: bool,
    confidence: float,
) -> MixedSlope:
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec  # slow to import

    pair, seed, dose = np.nonzero(known)
    unit = np.abs(strength).max()  # the optimiser wants variances of one size
    spread = score[known].std()
    fixed = np.column_stack([np.ones(len(dose)), strength[dose] / unit])
    components = None
    if with_seeds:
        seeds = [seed[pair == one] for one in np.unique(pair)]
        columns = [np.unique(own) for own in seeds]
        matrices = [(own[:, None] == kinds).astype(float) for own, kinds in zip(seeds, columns, strict=True)]
        components = VCSpec(["seed"], [[[str(kind) for kind in kinds] for kinds in columns]], [matrices])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            fit = MixedLM(score[known] / spread, fixed, pair, exog_re=fixed, exog_vc=components).fit(
                reml=True
            )
        except (np.linalg.LinAlgError, ValueError):  # no residual variance is left
            return MixedSlope(*(np.nan,) * 4, SINGULAR)
    variances = [*np.linalg.eigvalsh(fit.cov_re), *fit.vcomp]
    boundary = any("boundary" in str(one.message) or "singular" in str(one.message) for one in said)
    slope, error = (float(values[1]) * spread / unit for values in (fit.fe_params, fit.bse_fe))
    status = CONVERGED
    if not fit.converged:
        status = NOT_CONVERGED
    elif boundary or min(variances) < LEAST_VARIANCE or not np.isfinite(error):
        status = SINGULAR
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * error
    return MixedSlope(slope, error, slope - half, slope + half, status)
