"""Intervals for the numbers that people read off a map."""

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import stats

RESAMPLES = 2000


def bootstrap_interval(
    statistic: Callable[..., np.ndarray | np.floating],
    samples: tuple[Float[np.ndarray, " n"], ...],
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Paired BCa bootstrap interval of `statistic(*samples, axis)` over the shared rows of `samples`.

    Bias-corrected and accelerated (Efron 1987), through `scipy.stats.bootstrap`. Where BCa is undefined because
    every resample gives the same value, that value is both ends. Gives (NaN, NaN) for fewer than two rows or any
    NaN among them.
    """
    if len(samples[0]) < 2 or any(np.isnan(sample).any() for sample in samples):
        return float("nan"), float("nan")
    point = float(statistic(*samples, axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered below
        interval = stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            confidence_level=confidence,
            n_resamples=RESAMPLES,
            method="percentile" if _constant(samples) else "BCa",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return (point, point) if np.isnan(low) or np.isnan(high) else (low, high)


def benjamini_hochberg(p_values: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
    """Benjamini–Hochberg adjusted p-values over all cells of a map; NaN cells stay NaN and do not count."""
    adjusted = np.full(p_values.shape, np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known], method="bh")
    return adjusted


def _constant(samples: tuple[np.ndarray, ...]) -> bool:
    return all(np.ptp(sample) == 0 for sample in samples)
