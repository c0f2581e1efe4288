"""Summaries of the dose-response curves of a trial, by way of steering and sign, with intervals and random bands."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool

from analyses.evaluation.alignment import SIGNS, areas
from analyses.evaluation.benchmark_spec import is_control
from analyses.evaluation.dose_curves import DoseCurve, TrialMeans, arms_of, score_changes, signs_of, ways_of
from analyses.evaluation.equal_distance import (
    AtMeasure,
    CommonDistance,
    common_distances,
    place_at,
    strength_at,
    value_at,
)
from analyses.evaluation.monotonicity import violations
from analyses.evaluation.null_bands import band, nulls_of
from analyses.evaluation.ranking import rank_interval
from analyses.evaluation.replicates import Interval, Replicates, Values
from analyses.evaluation.slopes import NO_SLOPE, mixed_slope, ols_slope

BANDED = ("slope_bootstrap", "effect_at_distance", "area")
"""Statistics that null ways have, too."""


class Statistic(NamedTuple):
    """A statistic of a curve in every replicate, the numbers of pairs it rests on, and its dims."""

    values: Values
    n: np.ndarray
    dims: tuple[str, ...]


class Table:
    """Variables of a Dataset by way and sign, filled cell by cell; what is not filled is NaN."""

    def __init__(self, trial: xr.Dataset, ways: list[str]) -> None:
        self.coords = {
            "way": ways,
            "sign": signs_of(trial),
            "scorer": trial.scorer.values.tolist(),
            "measure": trial.measure.values.tolist(),
        }
        self._variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}

    def fill(self, name: str, way: str, sign: str, values: np.ndarray, *dims: str) -> None:
        """Set one way's and sign's values of a variable."""
        if name not in self._variables:
            whole = ("way", "sign", *dims)
            shape = [len(self.coords[dim]) for dim in whole]
            empty = "" if values.dtype == object else np.nan
            self._variables[name] = whole, np.full(shape, empty, dtype=values.dtype)
        place = self.coords["way"].index(way), self.coords["sign"].index(sign)
        self._variables[name][1][place] = values

    def fill_interval(self, name: str, way: str, sign: str, interval: Interval, *dims: str) -> None:
        """Set one way's and sign's value and ends."""
        for end, values in zip(("", "_lo", "_hi"), interval, strict=True):
            self.fill(name + end, way, sign, values, *dims)

    def dataset(self) -> xr.Dataset:
        """Return all variables."""
        return xr.Dataset(self._variables, self.coords)


def curve_summaries(
    trial: xr.Dataset,
    means: TrialMeans,
    able: Bool[np.ndarray, " scorer"],
) -> xr.Dataset:
    """Summarise the curve of each way of steering and sign.

    Args:
        trial: the trial, with its own concept's scores.
        means: of the trial.
        able: which judges are interpretable; no mixed model is fitted for the others.

    Returns:
        What `docs/steering-benchmark.md` lists by way and sign, with `_lo` and `_hi` each, and `common_distance` and
        `limited_by`, what limits it (sign, measure).
    """
    ways = ways_of(trial)
    table = Table(trial, ways)
    curves = means.curves(ways)
    distances = common_distances(curves, means.real_distance)
    found: dict[str, dict[tuple[str, str], Statistic]] = defaultdict(dict)
    for (way, sign), curve in curves.items():
        table.fill("curve_n", way, sign, curve.n.astype(float), "scorer")
        statistics = statistics_of(curve, distances[sign].values)
        for name, statistic in statistics.items():
            found[name][way, sign] = statistic
            interval = means.replicates.interval(statistic.values, statistic.n)
            table.fill_interval(name, way, sign, interval, *statistic.dims)
        slope = statistics["slope_bootstrap"]
        by_pairs = means.replicates.student_interval(slope.values, slope.n)
        table.fill_interval("slope", way, sign, by_pairs, *slope.dims)
        _fill_slopes(table, trial, able, way, sign)
        _fill_bands(table, trial, means, way, sign, distances[sign].values, statistics)
    _fill_violations(table, trial, means.replicates)
    _fill_ranks(table, found["effect_at_distance"], means.replicates)
    return table.dataset().merge(_distances(table, distances, means))


def statistics_of(curve: DoseCurve, distance: AtMeasure) -> dict[str, Statistic]:
    """Return the statistics of a curve in every replicate, at a distance at which it is compared with others."""
    place = place_at(curve.distance, distance)
    effect = value_at(curve.change, place)
    of_both = np.minimum(curve.n[:, None], curve.n_distance)
    whole = np.where(curve.control > 0, curve.control, np.nan)[..., None]
    path = areas(
        np.moveaxis(curve.distance, 1, -1)[:, None],
        np.moveaxis(curve.change, 1, -1)[:, :, None],
        distance[:, None],
    )
    both = ("scorer", "measure")
    return {
        "slope_bootstrap": Statistic(ols_slope(curve.strength, curve.change), curve.n, ("scorer",)),
        "offset": Statistic(curve.change[:, 1], curve.n, ("scorer",)),
        "offset_distance": Statistic(curve.distance[:, 1], curve.n_distance, ("measure",)),
        "strength_at_distance": Statistic(strength_at(curve.strength, place), curve.n_distance, ("measure",)),
        "effect_at_distance": Statistic(effect, of_both, both),
        "ratio_at_distance": Statistic(effect / whole, of_both, both),
        "area": Statistic(path, of_both, both),
    }


def _fill_slopes(
    table: Table, trial: xr.Dataset, able: Bool[np.ndarray, " scorer"], way: str, sign: str
) -> None:
    """Fill in the mixed model's slope, for judges that are interpretable."""
    arms = arms_of(trial, way, sign)
    score = trial.score.sel(arm=arms, concept=trial.attrs["concept"])
    strength = np.abs(score.strength.values)
    score = SIGNS[sign] * score.transpose("scorer", "pair", "seed", "arm")
    fits = [
        mixed_slope(strength, of_scorer.values) if hears else NO_SLOPE
        for of_scorer, hears in zip(score, able, strict=True)
    ]
    value, error, low, high, status = (np.array(column) for column in zip(*fits, strict=True))
    table.fill_interval("slope_mixed", way, sign, Interval(value, low, high), "scorer")
    table.fill("slope_mixed_se", way, sign, error, "scorer")
    table.fill("slope_status", way, sign, status.astype(object), "scorer")


def _fill_bands(
    table: Table,
    trial: xr.Dataset,
    means: TrialMeans,
    way: str,
    sign: str,
    distance: AtMeasure,
    own: Mapping[str, Statistic],
) -> None:
    """Fill in the random bands of a way's `own` statistics, from the null ways' curves; NaN if it has too few."""
    nulls = [means.curve(null, sign) for null in nulls_of(trial, way)]
    of_nulls = [statistics_of(null, distance) for null in nulls if null is not None]
    for name in BANDED:
        values = [statistics[name].values[0] for statistics in of_nulls]
        ends = band(np.array(values).reshape(len(values), *own[name].values.shape[1:]))
        for end, limit in zip(("_lo", "_hi"), ends, strict=True):
            table.fill(f"null_{name}{end}", way, sign, limit, *own[name].dims)


def _fill_violations(table: Table, trial: xr.Dataset, replicates: Replicates) -> None:
    change = score_changes(trial).sel(concept=trial.attrs["concept"], drop=True)
    whole = abs(change.sel(arm="clean")).mean(("pair", "seed"))
    tie = trial.attrs["resolution"] * whole.values
    for way in table.coords["way"]:
        for sign in table.coords["sign"]:
            if len(arms_of(change, way, sign)) > 1:
                found = violations(change, way, sign, tie, replicates)
                table.fill_interval("violations", way, sign, found, "scorer")


def _fill_ranks(table: Table, effects: Mapping[tuple[str, str], Statistic], replicates: Replicates) -> None:
    """Fill in the rank of each method by its effect at equal distance, among those with strengths of the sign."""
    for sign in table.coords["sign"]:
        ways = [way for way, own in effects if own == sign and not is_control(way)]
        if not ways:
            continue
        values = np.stack([effects[way, sign].values for way in ways], axis=1)
        n = np.stack([effects[way, sign].n for way in ways])
        interval, first = rank_interval(values, n, replicates)
        for place, way in enumerate(ways):
            of_way = Interval(*(end[place] for end in interval))
            table.fill_interval("rank", way, sign, of_way, "scorer", "measure")
            table.fill("first", way, sign, first[place], "scorer", "measure")


def _distances(table: Table, distances: Mapping[str, CommonDistance], means: TrialMeans) -> xr.Dataset:
    n = means.n_distance.min("arm").values
    coords = {name: table.coords[name] for name in ("sign", "measure")}
    found = {name: xr.DataArray(np.nan, coords, ("sign", "measure")) for name in ("", "_lo", "_hi")}
    limits = xr.DataArray(np.full(found[""].shape, "", dtype=object), coords, ("sign", "measure"))
    for sign, common in distances.items():
        limits.loc[sign] = common.limited_by
        for end, of_end in zip(found, means.replicates.interval(common.values, n), strict=True):
            found[end].loc[sign] = of_end
    variables = {f"common_distance{end}": values for end, values in found.items()}
    return xr.Dataset(variables | {"limited_by": limits})
