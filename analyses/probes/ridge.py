"""Ridge probes: how well a descriptor of the audio is predicted from the activations, on held-out prompts."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from analyses.probes.significance import permutation_p
from analyses.probes.spec import ProbeSpec
from analyses.statistics import bootstrap_interval
from cache.errors import UserError
from workbench.scorers.descriptor_scorer import DescriptorScorer, high
from workbench.studies.study import Study

PENALTIES = 10.0 ** np.arange(-2, 7)
"""Penalties of which each probe takes the one with which it predicts left-out prompts of its training clips best."""
FEWEST_PROMPTS = 4

Splits = list[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]


class RidgeTask(NamedTuple):
    """A descriptor prepared for probing, the same at all sites and steps."""

    clips: Int[np.ndarray, " clip"]  # rows of the clip table that have a value of the descriptor
    groups: Int[np.ndarray, " clip"]  # prompts, from 0
    values: Float[np.ndarray, " clip"]
    splits: Splits
    spec: ProbeSpec

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return int(self.groups.max()) + 1

    def shuffled(self, n: int, site: str = "", step: int = 0) -> Float[np.ndarray, "shuffle clip"]:
        """Return `n` shuffles of the values between prompts with as many clips, others for each site and step."""
        rng = np.random.default_rng([self.spec.seed, step, *site.encode()])
        sizes = np.bincount(self.groups)
        rows = np.argsort(self.groups, kind="stable")
        starts = np.cumsum(sizes) - sizes
        drawn = np.empty((n, len(self.values)))
        for shuffle in drawn:
            for size in np.unique(sizes):
                alike = np.flatnonzero(sizes == size)
                places = rows[starts[alike][:, None] + np.arange(size)]
                shuffle[places] = self.values[rng.permutation(places)]
        return drawn


class RidgeScores(NamedTuple):
    """Scores of the probes of one descriptor at one site and step; for their meaning, see `ridge_scores`."""

    r2: float
    r2_lo: float
    r2_hi: float
    r2_fold: Float[np.ndarray, " fold"]
    shuffled: Float[np.ndarray, " shuffle"]


def descriptor_tasks(study: Study, spec: ProbeSpec) -> tuple[dict[str, RidgeTask], dict[str, str]]:
    """Return the tasks of the spec's descriptors that can be probed, and why others cannot.

    Raises:
        UserError: as `measured_values` does.
    """
    tasks, skipped = {}, {}
    groups, _ = pd.factorize(study.clips["encoding"])
    for descriptor, values in measured_values(study, spec.descriptors).items():
        try:
            tasks[descriptor] = ridge_task(values, groups, spec)
        except UserError as error:
            skipped[descriptor] = f"Descriptor '{descriptor}' cannot be probed: {error}"
    return tasks, skipped


def measured_values(study: Study, descriptors: Sequence[str]) -> dict[str, Float[np.ndarray, " clip"]]:
    """Measure descriptors of all clips of a study, if there are any; NaN where a clip has no value.

    Raises:
        UserError: if a clip's recording is missing or damaged.
    """
    if not descriptors:
        return {}
    scorer, texts = DescriptorScorer(), list(map(high, descriptors))
    values = np.empty((len(study.clips), len(descriptors)))
    for clip, row in enumerate(values):
        audio, rate = study.read_audio(study.audio_path(clip).relative_to(study.path).as_posix())
        row[:] = scorer.score(audio[None], rate, texts)[0]
    return dict(zip(descriptors, values.T, strict=True))


def ridge_task(
    values: Float[np.ndarray, " clip"], groups: Int[np.ndarray, " clip"], spec: ProbeSpec
) -> RidgeTask:
    """Prepare the folds of a descriptor, each of which holds out whole prompts (`groups`).

    Raises:
        UserError: if clips with a value have fewer prompts than there are folds, or all the same value.
    """
    clips = np.flatnonzero(~np.isnan(values))
    known, (_, group) = values[clips], np.unique(groups[clips], return_inverse=True)
    n = len(np.unique(group))
    if n < max(spec.folds, FEWEST_PROMPTS):
        raise UserError(
            f"its clips with a value have {n} prompts, of at least {max(spec.folds, FEWEST_PROMPTS)} that are needed: "
            "trace more prompts."
        )
    if np.ptp(known) == 0:
        raise UserError(f"it is {known[0]:g} in all clips.")
    order = np.random.default_rng(spec.seed).permutation(n)
    ends = np.linspace(0, n, spec.folds + 1).round().astype(int)
    held_out = [np.isin(group, order[first:last]) for first, last in pairwise(ends)]
    splits = [(np.flatnonzero(~test), np.flatnonzero(test)) for test in held_out]
    return RidgeTask(clips, group, known, splits, spec)


def ridge_scores(
    activations: Float[np.ndarray, "clip channel"],
    task: RidgeTask,
    shuffled: Float[np.ndarray, "shuffle clip"],
) -> RidgeScores:
    """Score ridge regressions of a descriptor on the activations of its clips.

    Inputs are standardised by the training clips, and the penalty is chosen there (`fitted_ridge`).

    - r2: 1 − Σ (y − ŷ)² / Σ (y − ȳ)² over the test clips of all folds, where ȳ is the mean of the fold's training
      clips: 0 for a probe that knows no more than this mean, below 0 for a worse one.
    - r2_lo, r2_hi: its 95 % BCa bootstrap interval over test prompts, with the trained probes held fixed.
    - r2_fold: the same of each fold.
    - shuffled: r2 of probes refitted to each shuffle of the values.
    """
    targets = np.column_stack([task.values, *shuffled])
    errors, spread = np.empty_like(targets), np.empty_like(targets)
    with threadpool_limits(1):  # for such small matrices, waiting for threads would take longer
        for train, test in task.splits:
            probe = fitted_ridge(activations[train], targets[train], task.groups[train])
            errors[test] = (targets[test] - probe(activations[test])) ** 2
            spread[test] = (targets[test] - targets[train].mean(axis=0)) ** 2
    r2 = 1 - errors.sum(axis=0) / spread.sum(axis=0)
    by_prompt = tuple(np.bincount(task.groups, part[:, 0]) for part in (errors, spread))
    low, high_ = bootstrap_interval(_r2, by_prompt)
    folds = np.array([1 - errors[test, 0].sum() / spread[test, 0].sum() for _, test in task.splits])
    return RidgeScores(float(r2[0]), low, high_, folds, r2[1:])


def fitted_ridge(
    x: Float[np.ndarray, "clip channel"],
    y: Float[np.ndarray, "clip target"],
    groups: Int[np.ndarray, " clip"],
) -> Callable[[Float[np.ndarray, "other channel"]], Float[np.ndarray, "other target"]]:
    """Fit a ridge regression of each target, and return what predicts the targets of other clips.

    A target's penalty is the one of `PENALTIES` with the least squared error for left-out groups (prompts). Leaving out
    single clips would favour too small ones: other clips of the same prompt are nearly the same. The errors e of a
    group are in closed form: with H the hat matrix (centring included) and r the residuals of all, (I − H_gg) e = r_g.
    """
    centre, scale, mean = x.mean(axis=0), x.std(axis=0), y.mean(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    u, s, vt = np.linalg.svd((x - centre) / scale, full_matrices=False)
    along = u.T @ (y - mean)
    shrink = s**2 / (s**2 + PENALTIES[:, None])
    residual = (y - mean) - u @ (shrink[:, :, None] * along)
    error = np.zeros((len(PENALTIES), y.shape[1]))
    for group in np.unique(groups):
        own = groups == group
        hat = (u[own] * shrink[:, None]) @ u[own].T + 1 / len(x)
        error += (np.linalg.solve(np.eye(own.sum()) - hat, residual[:, own]) ** 2).sum(axis=1)
    weights = vt.T @ ((s / (s**2 + PENALTIES[error.argmin(axis=0), None])).T * along)
    return lambda others: mean + ((others - centre) / scale) @ weights


def ridge_dataset(
    scores: Iterable[Sequence[RidgeScores]],
    tasks: dict[str, RidgeTask],
    sites: Sequence[str],
    steps: Sequence[int],
) -> xr.Dataset:
    """Make the variables of ridge probes from the scores of each (site, step) cell and descriptor.

    `r2_control` is the mean over a cell's shuffles; `r2_p` is one-sided, from the null that pools the shuffles of all
    cells of a descriptor (`permutation_p`).
    """
    cells = list(scores)
    shape = (len(sites), len(steps), len(tasks))
    dims = ("site", "step", "descriptor")

    def variable(values: list[list[np.ndarray | float]]) -> tuple[tuple[str, ...], np.ndarray]:
        array = np.array(values)
        return (*dims, "fold")[: array.ndim + 1], array.reshape(*shape, *array.shape[2:])

    nulls = [np.concatenate([score.shuffled for score in of_task]) for of_task in zip(*cells, strict=True)]
    found = {
        name: variable([[getattr(score, name) for score in cell] for cell in cells])
        for name in ("r2", "r2_lo", "r2_hi", "r2_fold")
    }
    found["r2_control"] = variable([[score.shuffled.mean() for score in cell] for cell in cells])
    p_values = [
        permutation_p(found["r2"][1][..., place], null, 1 / math.factorial(min(task.n_prompts, 20)))
        for place, (task, null) in enumerate(zip(tasks.values(), nulls, strict=True))
    ]
    of_tasks = {
        "descriptor_n": [len(task.clips) for task in tasks.values()],
        "descriptor_groups": [task.n_prompts for task in tasks.values()],
    }
    dataset = xr.Dataset(
        {
            **found,
            "r2_p": (dims, np.stack(p_values, axis=-1)),
            **{name: ("descriptor", values) for name, values in of_tasks.items()},
        },
        {"descriptor": list(tasks)},
    )
    return dataset.transpose("descriptor", "site", "step", "fold")


def _r2(errors: np.ndarray, spread: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(1 - errors.sum(axis) / spread.sum(axis))
