"""On-target, preservation and quality of steered clips, each from 0 to 1, and their harmonic mean.

All are relative to the real prompt of the same trial: its clips are fully on target, and as far from the unsteered ones
as rewriting the prompt takes them. A way of steering is of use only if it gets on target and stays closer.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.evaluation.dose_curves import TrialMeans, paired_means
from analyses.evaluation.replicates import Values
from analyses.steering.effects import UNSTEERED


def tradeoff(means: TrialMeans, quality: xr.DataArray | None = None) -> xr.Dataset:
    """Compute on-target, preservation, quality and their harmonic mean for each arm, with percentile intervals.

    Each is a ratio of means over the same pairs and seeds, limited to the range from 0 to 1.

    Args:
        means: of the trial.
        quality: scores of quality with dims pair, seed and arm, higher being better, whose 0 is the worst, such as
            Audiobox Aesthetics'; without them, the harmonic mean is that of the two others.

    Returns:
        `on_target` (arm, scorer): the change in the direction of the strength's sign as a part of the real prompt's.
        `preservation` (arm, measure): 1 - the distance as a part of that of the real prompt's clips. `quality` (arm):
        the quality as a part of the unsteered clips'. `harmonic` (arm, scorer, measure). Each with `_lo` and `_hi`.
    """
    replicates = means.replicates
    change, real, n_change = paired_means(means.changes, "clean", replicates)
    distance, real_distance, n_distance = paired_means(means.distances, "clean", replicates)
    on_target = _part(means.signs[:, None] * change, means.towards * real)
    preservation = 1 - _part(distance, real_distance)
    n_both = np.minimum(n_change[:, :, None], n_distance[:, None])
    parts = [on_target[..., None], preservation[:, :, None]]
    kept = np.full(change.shape[:2], np.nan)
    n_quality = np.zeros(change.shape[1], dtype=int)
    if quality is not None:
        rows = quality.transpose("pair", "seed", "arm")
        mean, unsteered, n_quality = paired_means(rows, UNSTEERED, replicates)
        kept = _part(mean, unsteered)
        n_both = np.minimum(n_both, n_quality[:, None, None])
        parts.append(kept[:, :, None, None])
    together = harmonic_mean(*np.broadcast_arrays(*parts))
    of_arm: list[tuple[str, Values, np.ndarray, tuple[str, ...]]] = [
        ("on_target", on_target, n_change, ("scorer",)),
        ("preservation", preservation, n_distance, ("measure",)),
        ("quality", kept, n_quality, ()),
        ("harmonic", together, n_both, ("scorer", "measure")),
    ]
    found = xr.Dataset()
    for name, values, n, dims in of_arm:
        interval = replicates.interval(values, n, corrected=False)
        found = found.assign(interval.named(name, "arm", *dims))
    return found


def harmonic_mean(*parts: Values) -> Values:
    """Return the harmonic mean of numbers from 0 to 1: 0 if any is, and near the smallest otherwise."""
    stacked = np.stack(parts)
    with np.errstate(divide="ignore"):
        return len(parts) / (1 / stacked).sum(axis=0)


def _part(
    values: Float[np.ndarray, "*cells"], whole: Float[np.ndarray, "*#cells"]
) -> Float[np.ndarray, "*cells"]:
    """Return values as a part of a whole, from 0 to 1; NaN where the whole is not above 0."""
    part = np.divide(values, whole, out=np.full(values.shape, np.nan), where=whole > 0)
    return np.clip(part, 0, 1)
