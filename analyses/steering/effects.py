"""What steering does: how far each arm moves the scores of its own and of other concepts, with intervals and nulls."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from analyses.patching.impact import impact
from analyses.statistics import benjamini_hochberg, cluster_bootstrap, sign_flip_p
from analyses.steering.checks import compared

CONFIDENCE = 0.95
UNSTEERED = "corrupt"
OF_ARM = ("effect", "effect_lo", "effect_hi", "p", "null_lo", "null_hi")

Rows = Float[np.ndarray, "pair seed arm"]


def changes(score: xr.DataArray, concept: str, resolution: float, unsteered: str = UNSTEERED) -> xr.DataArray:
    """Return the change of each score from the unsteered run, by default the corrupt one; ties are exactly 0.

    A change is a tie if it is smaller than the `resolution` times the mean clean-corrupt difference of the steered
    `concept`: the sign of a rounding error has no meaning. Dims are those of the scores.
    """
    own = score.sel(concept=concept, drop=True)
    whole = own.sel(arm="clean", drop=True) - own.sel(arm="corrupt", drop=True)
    tie = resolution * abs(whole).mean(("pair", "seed"))
    change = score - score.sel(arm=unsteered, drop=True)
    return change.where(change.isnull() | (abs(change) >= tie), 0.0).transpose(*score.dims)


def effects(change: xr.DataArray, confidence: float = CONFIDENCE, seed: int = 0) -> xr.Dataset:
    """Compute the mean change of each score from the unsteered run, with intervals, p-values and null bands.

    Args:
        change: changes of scores (see `changes`) with dims (concept, pair, seed, arm, scorer), NaN where missing.
            Coordinates along `arm` are `role` ("run", "cell", "null") and `null_of`, the name of the arm that an arm is
            a null of.
        confidence: confidence level of the intervals and of the null bands.
        seed: seed of all random draws.

    Returns:
        By (concept, arm, scorer): `effect`, `effect_lo`, `effect_hi` (mean over pairs and seeds, with BCa bootstrap
        over whole pairs), `p` (sign flips of the pairs' mean changes), `p_adjusted` (Benjamini–Hochberg over the
        cells of a concept and scorer), and, of arms with null arms, `null_lo` and `null_hi` (the central `confidence`
        of the pooled bootstrap distributions of its null arms). The effect of the arm `clean` is that of the real
        prompt: whether the scorer can tell the two prompts apart at all.
    """
    names, roles = change["arm"].values, change["role"].values
    is_null_of = np.array([(roles == "null") & (change["null_of"].values == name) for name in names])
    values = xr.apply_ufunc(
        lambda rows: _of_arms(rows, is_null_of, confidence, seed),
        change,
        input_core_dims=[("pair", "seed", "arm")],
        output_core_dims=[("arm",)] * len(OF_ARM),
        vectorize=True,
    )
    found = xr.Dataset(dict(zip(OF_ARM, values, strict=True))).transpose("concept", "arm", "scorer")
    found["p"] = found.p.where(change.role != "run")
    family = found.p.where(change.role == "cell")
    found["p_adjusted"] = xr.apply_ufunc(
        benjamini_hochberg,
        family,
        input_core_dims=[("arm",)],
        output_core_dims=[("arm",)],
        vectorize=True,
    ).transpose("concept", "arm", "scorer")
    return found


def sign_checks(change: xr.DataArray, confidence: float = CONFIDENCE, seed: int = 0) -> xr.Dataset:
    """Compute whether each way of steering moves its concept the right way: the change from minus to plus.

    Compared are the smallest strength above 0 and the largest below it; the unsteered run where there is none.

    Args:
        change: as in `effects`, of one concept (no dim `concept`), with coordinates `row` and `strength` along `arm`.
        confidence: confidence level of the intervals.
        seed: seed of all random draws.

    Returns:
        By (way, scorer): `upward`, `upward_lo`, `upward_hi`. What they mean is said by
        `analyses.steering.checks.sign_verdict`.
    """
    rows = [row for row in dict.fromkeys(change.row.values.tolist()) if compared_arms(change, row)]
    upward = []
    for row in rows:
        minus, plus = (
            change.sel(arm=arm).reset_coords(drop=True) for arm in compared_arms(change, row).values()
        )
        upward.append(plus - minus)
    names = ("upward", "upward_lo", "upward_hi")
    of_rows = xr.concat(upward, xr.DataArray(rows, dims="way", name="way"))
    values = xr.apply_ufunc(
        lambda cells: _mean(cells, confidence, seed)[:3],
        of_rows,
        input_core_dims=[("pair", "seed", "way")],
        output_core_dims=[("way",)] * 3,
        vectorize=True,
    )
    return xr.Dataset(dict(zip(names, values, strict=True))).transpose("way", "scorer")


def restored_impacts(score: xr.DataArray, resolution: float, steered: str = "negative") -> xr.Dataset:
    """Compute how much of the real prompt's change each arm makes (see `analyses.patching.impact`).

    Args:
        score: scores of the steered concept alone, with dims (concept, pair, seed, arm, scorer).
        resolution: as in `changes`.
        steered: the end whose prompts are steered: "negative", or "positive", which the score is to fall for.

    Returns:
        What `impact` does, without the dim `concept`. The `denominator` is the effect of the arm `clean`, below 0 if
        positive prompts are steered.
    """
    if steered == "negative":
        return impact(score, resolution=resolution).isel(concept=0, drop=True)
    found = impact(-score, resolution=resolution).isel(concept=0, drop=True)
    ends = {
        "denominator": "denominator",
        "denominator_lo": "denominator_hi",
        "denominator_hi": "denominator_lo",
    }
    return found.assign({name: -found[other] for name, other in ends.items()})


def compared_arms(labelled: xr.DataArray | xr.Dataset, way: str) -> dict[float, str]:
    """Return the arms that the sign check of a way of steering compares (see `compared`), by strength, the lower first.

    `labelled` has the coordinates `row`, `strength` and `role` along `arm`. Empty for runs and null arms.
    """
    cells = labelled["arm"].values[(labelled["row"].values == way) & (labelled["role"].values == "cell")]
    by_strength = {0.0: UNSTEERED, **{float(labelled["strength"].sel(arm=arm)): str(arm) for arm in cells}}
    return {strength: by_strength[strength] for strength in compared(by_strength) or ()}


def pairs_with_both(score: xr.DataArray, arms: Iterable[str]) -> int:
    """Return the number of pairs with scores of all `arms` for the same noise; dims are pair, seed and arm."""
    known = score.sel(arm=list(arms)).notnull().all("arm")
    return int(known.any("seed").sum())


def _of_arms(
    rows: Rows, is_null_of: Bool[np.ndarray, "arm arm_b"], confidence: float, seed: int
) -> tuple[np.ndarray, ...]:
    """Return effect, interval, p and null band of each arm."""
    value, low, high, resampled = _mean(rows, confidence, seed)
    p = sign_flip_p(_of_pairs(rows), seed=seed)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    bands = np.full((2, len(value)), np.nan)
    for arm, nulls in enumerate(is_null_of):
        pooled = resampled[nulls].ravel()
        pooled = pooled[~np.isnan(pooled)]
        if pooled.size:
            bands[:, arm] = np.quantile(pooled, tails)
    return value, low, high, p, *bands


def _mean(
    rows: Rows, confidence: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Float[np.ndarray, "arm resample"]]:
    """Return the mean over pairs and seeds of each arm, its interval, and its resampled values."""
    known = ~np.isnan(rows)
    count = np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    boot = cluster_bootstrap(
        (_of_pairs(rows) * count, count), lambda total, n: total / n, confidence, seed=seed
    )
    return boot.value, boot.low, boot.high, boot.resampled


def _of_pairs(rows: Rows) -> Float[np.ndarray, "pair arm"]:
    """Return each pair's mean over its seeds, NaN if it has none."""
    known = ~np.isnan(rows)
    count = known.sum(axis=1)
    return np.where(count > 0, np.nansum(rows, axis=1) / count.clip(min=1), np.nan)
