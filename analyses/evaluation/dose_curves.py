"""Dose-response curves of ways of steering: mean change of a score and mean distance by strength, in every replicate.

All changes and distances are from one common zero point, the unsteered run of the same prompt and noise.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.replicates import Replicates, Values
from analyses.steering.effects import UNSTEERED, changes

Key = tuple[str, str]
"""Name of a way of steering, and sign."""


@dataclass(frozen=True)
class DoseCurve:
    """Means by strength of one way and sign, from the unsteered run on; a change the sign's way is above 0.

    All points rest on the same runs, those of which all clips and the real prompt's have a score, or a distance; so
    does `control`, the difference between the real prompts. `strength` is without its sign; `n` and `n_distance` are
    the numbers of pairs.
    """

    strength: Float[np.ndarray, " dose"]
    change: Float[np.ndarray, "replicate dose scorer"]
    distance: Float[np.ndarray, "replicate dose measure"]
    n: Int[np.ndarray, " scorer"]
    n_distance: Int[np.ndarray, " measure"]
    control: Float[np.ndarray, "replicate scorer"]


@dataclass(frozen=True)
class TrialMeans:
    """Means of every arm of a trial, in every replicate of its pairs, and the numbers of pairs they rest on.

    They are of `changes` and `distances` (pair, seed, arm, scorer or measure). `towards` is the sign of what
    the real prompts do: -1 if those with the positive value are steered.
    """

    towards: int
    replicates: Replicates
    changes: xr.DataArray
    distances: xr.DataArray
    change: xr.DataArray  # (replicate, arm, scorer)
    distance: xr.DataArray  # (replicate, arm, measure)
    n_change: xr.DataArray  # (arm, scorer)
    n_distance: xr.DataArray  # (arm, measure)

    @property
    def control(self) -> Float[np.ndarray, "replicate scorer"]:
        """The difference between the real prompts, positive minus negative."""
        return self.towards * self.change.sel(arm="clean").values

    @property
    def real_distance(self) -> Float[np.ndarray, "replicate measure"]:
        """The mean distance of the real prompts' clips."""
        return self.distance.sel(arm="clean").values

    @property
    def signs(self) -> Int[np.ndarray, " arm"]:
        """The sign of each arm's strength; of runs without one, that of what the real prompts do."""
        return np.where(self.change.strength == 0, self.towards, np.sign(self.change.strength)).astype(int)

    def curve(self, way: str, sign: str) -> DoseCurve | None:
        """Return the curve of a way of steering, or None if it has no strength of this sign."""
        arms = arms_of(self.change, way, sign)
        if len(arms) < 2:
            return None
        change, n = self._complete(self.changes.sel(arm=[*arms, "clean"]))
        distance, n_distance = self._complete(self.distances.sel(arm=[*arms, "clean"]))
        return DoseCurve(
            abs(self.change.strength.sel(arm=arms).values),
            SIGNS[sign] * change[:, :-1],
            distance[:, :-1],
            n,
            n_distance,
            self.towards * change[:, -1],
        )

    def _complete(self, values: xr.DataArray) -> tuple[Values, Int[np.ndarray, " cell"]]:
        """Return the means of arms over the runs that all of them have, and the number of pairs with one."""
        known = values.notnull().all("arm")
        return self.replicates.means(values.where(known).values), known.any("seed").sum("pair").values

    def curves(self, ways: Iterable[str]) -> dict[Key, DoseCurve]:
        """Return the curves of ways of steering by way and sign, without those that have no strengths."""
        found = {(way, sign): self.curve(way, sign) for way in ways for sign in SIGNS}
        return {key: curve for key, curve in found.items() if curve is not None}


def trial_means(trial: xr.Dataset, replicates: Replicates, concept: str = "") -> TrialMeans:
    """Return the mean changes of a concept's scores, by default the steered one's, and the mean distances.

    Args:
        trial: result of `run_steering`.
        replicates: of its pairs.
        concept: whose scores are taken.
    """
    change = score_changes(trial).sel(concept=concept or trial.attrs["concept"], drop=True)
    distance = trial.distance.transpose("pair", "seed", "arm", "measure")

    def mean(values: xr.DataArray) -> xr.DataArray:
        dims = ("replicate", *values.dims[2:])
        coords = {name: coord for name, coord in values.coords.items() if set(coord.dims) <= set(dims)}
        return xr.DataArray(replicates.means(values.values), coords, dims)

    n_change, n_distance = (known.notnull().any("seed").sum("pair") for known in (change, distance))
    return TrialMeans(
        towards(trial), replicates, change, distance, mean(change), mean(distance), n_change, n_distance
    )


def paired_means(
    values: xr.DataArray, whole: str, replicates: Replicates
) -> tuple[Values, Values, Int[np.ndarray, "*cells"]]:
    """Return the means of each arm, and those of an arm of which they are parts, over the runs that have both.

    Args:
        values: with dims pair, seed, arm and others.
        whole: the arm.
        replicates: of the pairs.

    Returns:
        Both means by replicate, arm and the other dims, and the numbers of pairs that they rest on.
    """
    of_whole = values.sel(arm=whole, drop=True).broadcast_like(values).transpose(*values.dims)
    both = values.notnull() & of_whole.notnull()
    part, total = (replicates.means(each.where(both).values) for each in (values, of_whole))
    return part, total, both.any("seed").sum("pair").values


def towards(trial: xr.Dataset) -> int:
    """Return 1 if prompts with negative values are steered, whose real prompt has the positive one, or -1."""
    return -1 if json.loads(trial.attrs["spec"])["steered"] == "positive" else 1


def score_changes(trial: xr.Dataset) -> xr.DataArray:
    """Return the changes of all scores from the unsteered run, with dims pair, seed, arm, scorer and concept."""
    change = changes(trial.score, trial.attrs["concept"], trial.attrs["resolution"])
    return change.transpose("pair", "seed", "arm", "scorer", "concept")


def ways_of(trial: xr.Dataset | xr.DataArray, role: str = "cell") -> list[str]:
    """Return the names of the ways of steering with arms of a role, in the order of the trial."""
    rows = trial["row"].values[trial["role"].values == role]
    return list(dict.fromkeys(map(str, rows)))


def signs_of(trial: xr.Dataset | xr.DataArray) -> list[str]:
    """Return the signs of the strengths of a trial's ways of steering."""
    strength = trial["strength"].values[trial["role"].values == "cell"]
    return [name for name, sign in SIGNS.items() if (sign * strength > 0).any()]


def arms_of(labelled: xr.Dataset | xr.DataArray, way: str, sign: str) -> list[str]:
    """Return the unsteered run and the arms of a way with strengths of a sign, from the weakest to the strongest."""
    strength = SIGNS[sign] * labelled["strength"].values
    own = (
        (labelled["row"].values == way) & np.isin(labelled["role"].values, ("cell", "null")) & (strength > 0)
    )
    places = np.flatnonzero(own)
    places = places[np.argsort(strength[places], kind="stable")]
    return [UNSTEERED, *map(str, labelled["arm"].values[places])]
