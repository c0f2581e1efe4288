"""Impacts of a sweep's arms: the fraction of the clean-corrupt difference that each one moves, with its uncertainty."""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from analyses.statistics import (
    benjamini_hochberg,
    cluster_bootstrap,
    halvings,
    rank_correlation,
    sign_flip_p,
)

CONFIDENCE = 0.95
# Impacts closer to 0 or 1 than this are rounding error, by the model's dtype: a few rounding units of float16 and
# bfloat16; for float32, the largest effect of one step of 16-bit audio.
RESOLUTION = {"float32": 1e-4, "float16": 1e-3, "bfloat16": 1e-2}
HALVINGS = 500
DIMS = ("concept", "pair", "seed", "arm", "scorer")
OF_ARM = ("impact", "impact_lo", "impact_hi", "p")
OF_MAP = ("null_lo", "null_hi", "stability", "stability_lo", "stability_hi")

Rows = Float[np.ndarray, "pair seed arm"]


def impact(
    score: xr.DataArray,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    resolution: float = RESOLUTION["float32"],
) -> xr.Dataset:
    """Compute the impact of each arm on each concept by each scorer, with intervals, p-values, null band and stability.

    With s the mean over (pair, seed) rows, the impact is (s_arm - s_corrupt) / (s_clean - s_corrupt) for sufficiency
    (the arm edits the corrupt run) and (s_clean - s_arm) / (s_clean - s_corrupt) for necessity (the arm edits the
    clean run): TADA, arXiv 2602.11910, Eq. 2, not floored. A row without a clean or a corrupt score is ignored; a row
    without an arm's score is ignored for that arm.

    Args:
        score: scores with dims (concept, pair, seed, arm, scorer), NaN where missing. The arms include `clean` and
            `corrupt`; coordinates along `arm` are `direction` ("sufficiency", "necessity", "" for runs) and `role`
            ("run", "cell", "null").
        confidence: confidence level of the intervals and of the null band.
        seed: seed of all random draws.
        resolution: fraction of the mean clean-corrupt difference; an arm's score that is closer than this to the clean
            or corrupt run's is set equal to it, because the sign of a rounding error has no meaning.

    Returns:
        By (concept, arm, scorer), NaN for runs and if not `defined`: `impact`, `impact_lo`, `impact_hi` (BCa
        bootstrap over whole pairs with all their seeds), `p` (sign flips of the pairs' mean change from the base run),
        `p_adjusted` (Benjamini–Hochberg over all cells of all defined concepts of a scorer, those without scores, such
        as cells that a screening left out, counting as p = 1; NaN for null arms and without a p).

        By (concept, scorer): `denominator`, `denominator_lo`, `denominator_hi` (s_clean - s_corrupt, in units of the
        score), `n` (rows), `n_pairs`, `defined` (the denominator's interval is above 0), `null_lo`, `null_hi` (the
        central `confidence` of all null arms' pooled bootstrap distributions), `stability`, `stability_lo`,
        `stability_hi` (mean and percentiles, over random halvings of the pairs, of Spearman's correlation between the
        cells' impacts in the two halves).
    """
    score = score.transpose(*DIMS)
    gain, rest = gain_and_rest(score, resolution)
    by_concept = _denominator(score, confidence, seed)
    maps = _maps(gain, rest, confidence, seed).where(by_concept.defined)
    result = by_concept.merge(maps)
    result[list(OF_ARM)] = result[list(OF_ARM)].where(score.role != "run")
    cells = score.role == "cell"
    family = result.p.fillna(1.0).where(cells & result.defined)
    result["p_adjusted"] = (
        xr.apply_ufunc(
            benjamini_hochberg,
            family,
            input_core_dims=[("concept", "arm")],
            output_core_dims=[("concept", "arm")],
            vectorize=True,
        )
        .where(result.p.notnull())
        .transpose("concept", "arm", "scorer")
    )
    return result


def gain_and_rest(score: xr.DataArray, resolution: float) -> tuple[xr.DataArray, xr.DataArray]:
    """Return each arm's distance from its base run (gain) and to the other run (rest); ties are exactly 0.

    They sum to clean - corrupt. An arm that equals one of the runs has gain or rest exactly 0, so its impact is
    exactly 0 or 1.
    """
    clean, corrupt = (score.sel(arm=arm).reset_coords(drop=True) for arm in ("clean", "corrupt"))
    sufficiency = score.direction == "sufficiency"
    whole = clean - corrupt
    tie = resolution * abs(whole).mean(("pair", "seed"))
    above, below = score - corrupt, clean - score
    at_corrupt, at_clean = abs(above) < tie, abs(below) < tie
    above = xr.where(at_corrupt, 0.0, xr.where(at_clean, whole, above))
    below = xr.where(at_corrupt, whole, xr.where(at_clean, 0.0, below))
    known = score.notnull() & whole.notnull()
    gain = xr.where(sufficiency, above, below).where(known)
    rest = xr.where(sufficiency, below, above).where(known)
    return gain.transpose(*DIMS), rest.transpose(*DIMS)


def _denominator(score: xr.DataArray, confidence: float, seed: int) -> xr.Dataset:
    """Return the clean-corrupt difference by (concept, scorer), with its interval and the numbers of rows and pairs."""
    clean, corrupt = (score.sel(arm=arm).reset_coords(drop=True) for arm in ("clean", "corrupt"))
    difference = clean - corrupt

    def mean(values: Float[np.ndarray, "pair seed"]) -> tuple[float, float, float]:
        sums, rows = totals(values[..., None]), totals(np.where(np.isnan(values), np.nan, 1.0)[..., None])
        boot = cluster_bootstrap((sums, rows), lambda total, n: total / n, confidence, seed=seed)
        return float(boot.value[0]), float(boot.low[0]), float(boot.high[0])

    value, low, high = xr.apply_ufunc(
        mean, difference, input_core_dims=[("pair", "seed")], output_core_dims=[()] * 3, vectorize=True
    )
    known = difference.notnull()
    return xr.Dataset(
        {
            "denominator": value,
            "denominator_lo": low,
            "denominator_hi": high,
            "n": known.sum(("pair", "seed")),
            "n_pairs": known.any("seed").sum("pair"),
            "defined": low > 0,
        }
    )


def _maps(gain: xr.DataArray, rest: xr.DataArray, confidence: float, seed: int) -> xr.Dataset:
    """Compute `OF_ARM` and `OF_MAP` of each map; a map is all arms of one concept by one scorer."""
    is_null, is_cell = ((gain.role == role).values for role in ("null", "cell"))
    values = xr.apply_ufunc(
        lambda gain, rest: (
            *_of_arms(gain, rest, is_null, confidence, seed),
            *_stability(gain[..., is_cell], rest[..., is_cell], confidence, seed),
        ),
        gain,
        rest,
        input_core_dims=[("pair", "seed", "arm")] * 2,
        output_core_dims=[("arm",)] * len(OF_ARM) + [()] * len(OF_MAP),
        vectorize=True,
    )
    maps = xr.Dataset(dict(zip(OF_ARM + OF_MAP, values, strict=True)))
    return maps.transpose("concept", "arm", "scorer")


def _of_arms(
    gain: Rows, rest: Rows, is_null: Bool[np.ndarray, " arm"], confidence: float, seed: int
) -> tuple[np.ndarray | float, ...]:
    """Return impact, interval and p of each arm, and the null band; NaN if an arm's rows do not sum to more than 0."""
    of_pairs = totals(gain), totals(rest)
    boot = cluster_bootstrap(of_pairs, fraction, confidence, seed=seed)
    p = sign_flip_p(of_pairs[0] / (~np.isnan(gain)).sum(axis=1).clip(min=1), seed=seed)
    known = np.nansum(of_pairs, axis=(0, 1)) > 0
    of_arm = (np.where(known, values, np.nan) for values in (boot.value, boot.low, boot.high, p))
    return *of_arm, *_central(boot.resampled[is_null & known], confidence)


def _stability(gain: Rows, rest: Rows, confidence: float, seed: int) -> tuple[float, ...]:
    """Return mean and percentiles of the rank correlation between the cells' impacts in two halves of the pairs."""
    run = ~np.isnan(gain).all(axis=(1, 2))
    if run.sum() < 2:
        return (np.nan,) * 3
    sums = [np.nan_to_num(totals(rows[run])) for rows in (gain, rest)]
    first = halvings(int(run.sum()), HALVINGS, seed)
    one, other = (fraction(*(half @ rows for rows in sums)) for half in (first, 1 - first))
    known = ~np.isnan(one).any(axis=0) & ~np.isnan(other).any(axis=0)
    rho = rank_correlation(one[:, known], other[:, known])
    rho = rho[~np.isnan(rho)]
    return float(rho.mean()) if rho.size else np.nan, *_central(rho, confidence)


def _central(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the ends of the central `confidence` of all values that are not NaN."""
    values = values[~np.isnan(values)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) if values.size else (np.nan, np.nan)
    return float(low), float(high)


def fraction(gain: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return gain / (gain + rest) of totals: the impact as a ratio of means; NaN where they sum to 0."""
    whole = gain + rest
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole == 0, np.nan, gain / whole)


def totals(rows: Rows) -> Float[np.ndarray, "pair arm"]:
    """Sum over each pair's seeds, ignoring NaN; NaN if all are NaN."""
    return np.where(np.isnan(rows).all(axis=1), np.nan, np.nansum(rows, axis=1))
