"""Slopes of dose-response curves: by a linear mixed model, and by a bootstrap of whole pairs as a check."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from analyses.evaluation.replicates import CONFIDENCE

CONVERGED = "converged"
SINGULAR = "singular"
NOT_CONVERGED = "not converged"
TOO_FEW = "too few pairs or strengths"
LEAST_PAIRS = 3
LEAST_GAIN = 0.05
"""Intercepts of seeds that raise the log-likelihood by no more than this explain nothing."""
LEAST_VARIANCE = 1e-6
"""A component of the variance below this, of scores of variance 1, is estimated as none: the fit is singular."""


class MixedSlope(NamedTuple):
    """Slope per unit of strength by the mixed model, its standard error and interval, and how the fit ended."""

    value: float
    standard_error: float
    low: float
    high: float
    status: str


NO_SLOPE = MixedSlope(np.nan, np.nan, np.nan, np.nan, "")


def mixed_slope(
    strength: Float[np.ndarray, " dose"],
    score: Float[np.ndarray, "pair seed dose"],
    confidence: float = CONFIDENCE,
) -> MixedSlope:
    """Fit score = a + b strength by restricted maximum likelihood, with random a and b of each pair and a of each seed.

    The random slope is always kept: without it, pairs that respond differently would make the interval too narrow (Barr
    et al. 2013). The intercepts of seeds are left out if the fit does not converge with them and they explain nothing.
    The interval is that of Student's t with one degree of freedom fewer than pairs, which is exact in balanced designs
    with normal effects.

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
    if n < LEAST_PAIRS or len(np.unique(strength)) < 2:
        return NO_SLOPE._replace(status=TOO_FEW)
    if np.ptp(score[known]) == 0:
        return NO_SLOPE._replace(status=SINGULAR)
    several = bool((known.any(axis=2).sum(axis=1) > 1).any())
    found, likelihood = _fitted(strength, score, known, several, confidence)
    if several and found.status != CONVERGED:
        without, likelihood_without = _fitted(strength, score, known, False, confidence)
        if np.isnan(likelihood) or likelihood_without >= likelihood - LEAST_GAIN:
            return without
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
    known: Bool[np.ndarray, "pair seed dose"],
    with_seeds: bool,
    confidence: float,
) -> tuple[MixedSlope, float]:
    """Return the slope and the log-likelihood of the fit, NaN if there is none."""
    from analyses import mixed_models  # slow to import

    pair, seed, dose = np.nonzero(known)
    # Of one size and uncorrelated, as the optimiser wants them: neither changes the slope.
    unit, spread = np.abs(strength).max(), score[known].std()
    line = np.column_stack([np.ones(len(dose)), (strength[dose] - strength.mean()) / unit])
    components = _of_seeds(pair, seed) if with_seeds else None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = mixed_models.BoundedMixedLM(
                score[known] / spread, line, pair, exog_re=line, exog_vc=components
            )
            fit = mixed_models.fit(model)
            slope, error = (float(values[1]) * spread / unit for values in (fit.fe_params, fit.bse_fe))
        except (np.linalg.LinAlgError, ValueError):  # nothing is left for the residual variance
            return NO_SLOPE._replace(status=SINGULAR), np.nan
    edge = any("boundary" in str(one.message) or "singular" in str(one.message) for one in said)
    least = min([*np.linalg.eigvalsh(fit.cov_re), *fit.vcomp])
    status = CONVERGED
    if not fit.converged:
        status = NOT_CONVERGED
    elif edge or least < LEAST_VARIANCE or not np.isfinite(error):
        status = SINGULAR
    n = int(known.any(axis=(1, 2)).sum())
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * error
    return MixedSlope(slope, error, slope - half, slope + half, status), float(fit.llf)


def _of_seeds(pair: Int[np.ndarray, " row"], seed: Int[np.ndarray, " row"]) -> Any:
    """Return the design of a random intercept of each seed of a pair."""
    from statsmodels.regression.mixed_linear_model import VCSpec  # slow to import

    of_pairs = [seed[pair == one] for one in np.unique(pair)]
    kinds = [np.unique(own) for own in of_pairs]
    designs = [(own[:, None] == of_pair).astype(float) for own, of_pair in zip(of_pairs, kinds, strict=True)]
    return VCSpec(["seed"], [[[str(kind) for kind in of_pair] for of_pair in kinds]], [designs])
