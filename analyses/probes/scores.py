"""The scores of linear probes: cross-validated accuracy with its interval, control task and p-value."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from analyses.probes.folds import Folds, ProbeTask, probe_task
from analyses.probes.significance import permutation_p, shuffles_per_probe, smallest_p
from analyses.probes.spec import ProbeSpec
from analyses.statistics import bootstrap_interval

MAX_ITERATIONS = 1000
_ROUNDING = 1e-9  # fractions of right clips that differ by less are equal


class CellScores(NamedTuple):
    """Scores of the probes of one concept at one site and step; for their meaning, see `probe_arrays`."""

    accuracy: Float[np.ndarray, " fold"]
    control: Float[np.ndarray, " fold"]
    accuracy_lo: float
    accuracy_hi: float
    shuffled: Float[np.ndarray, " shuffle"]  # mean accuracy of the folds of each shuffle


class ProbeScores(NamedTuple):
    """The scores of one probe; `probe_arrays` says what each means."""

    accuracy: Float[np.ndarray, " fold"]
    control: Float[np.ndarray, " fold"]
    accuracy_lo: float
    accuracy_hi: float
    p_value: float


def probe_arrays(
    activations: Float[np.ndarray, "clip channel"],
    labels: Shaped[np.ndarray, " clip"],
    groups: Shaped[np.ndarray, " clip"],
    contexts: Shaped[np.ndarray, " clip"],
    spec: ProbeSpec,
) -> ProbeScores:
    """Compute the cross-validated accuracy of logistic regression of `labels` on `activations`.

    `groups` are prompts; no prompt is in both training and test. `contexts` are the rest of the prompts: counterfactual
    partners, which differ only in the label, have the same context. Whole contexts are held out, so that no probe is
    tested on a prompt whose partner it was trained on: such a probe falls below chance if the label cannot be decoded,
    because the nearest training clip has the other label. Contexts that share a prompt are held out together. If a
    label has fewer contexts than there are folds, or no folds of whole contexts train on every class, single prompts
    are held out. Shuffles whose folds do not train on every class are drawn again.

    - accuracy: balanced accuracy of each fold (mean over classes of the fraction of its test clips that is correct).
    - control: the same with labels shuffled between groups, so that only chance remains (a control task, Hewitt &
      Liang 2019, arXiv 1909.03368); mean over the shuffles.
    - accuracy_lo, accuracy_hi: 95 % interval of the mean accuracy over test prompts (`accuracy_interval`). It covers
      the choice of test prompts, but not that of training prompts, because probes are not refitted.
    - p_value: one-sided test of the mean accuracy against the t distribution fitted to the accuracies of at least 100
      probes refitted to shuffled labels (`permutation_p`). Not corrected for the number of probes.

    Raises:
        UserError: if there is only one class, a group has several labels, or no folds train on every class (because one
            has too few groups).
    """
    return score_task(activations, probe_task(labels, groups, contexts, spec))


def score_cell(
    activations: Float[np.ndarray, "clip channel"], task: ProbeTask, shuffled: Iterable[Folds]
) -> CellScores:
    """Score one task on the activations of its clips, with these shuffles of its labels; see `probe_arrays`."""
    with threadpool_limits(1):  # for such small matrices, waiting for threads would take ten times as long
        right = _right(activations, task.true, task.spec.C)
        controls = np.array([_accuracy(_right(activations, folds, task.spec.C), folds) for folds in shuffled])
    accuracy_lo, accuracy_hi = accuracy_interval(right, task)
    return CellScores(
        accuracy=_accuracy(right, task.true),
        control=controls.mean(axis=0),
        accuracy_lo=accuracy_lo,
        accuracy_hi=accuracy_hi,
        shuffled=controls.mean(axis=1),
    )


def score_task(activations: Float[np.ndarray, "clip channel"], task: ProbeTask) -> ProbeScores:
    """Score one task at a single site and step, whose null comes from it alone; see `probe_arrays`."""
    cell = score_cell(activations, task, task.shuffled(shuffles_per_probe(task.spec.shuffles, 1)))
    p_value = permutation_p(
        cell.accuracy.mean(keepdims=True), cell.shuffled, smallest_p(task.group_labels)
    ).item()
    return ProbeScores(cell.accuracy, cell.control, cell.accuracy_lo, cell.accuracy_hi, p_value)


def _right(
    activations: Float[np.ndarray, "clip channel"], folds: Folds, C: float
) -> Bool[np.ndarray, " clip"]:
    """Whether each clip is predicted correctly by the probe of the fold that tests it."""
    right = np.zeros(len(activations), dtype=bool)
    for train, test in folds.splits:
        probe = fitted_probe(activations[train], folds.labels[train], C)
        right[test] = probe.predict(activations[test]) == folds.labels[test]
    return right


def fitted_probe(
    activations: Float[np.ndarray, "clip channel"], labels: Shaped[np.ndarray, " clip"], C: float
) -> Pipeline:
    """Fit a probe: a scaler, and a logistic regression with inverse penalty `C`."""
    # Classes may differ in size; balanced weights keep chance at one over the number of classes.
    logistic = LogisticRegression(C=C, class_weight="balanced", max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), logistic).fit(activations, labels)


def _accuracy(right: Bool[np.ndarray, " clip"], folds: Folds) -> Float[np.ndarray, " fold"]:
    """Return the balanced accuracy of each fold over the classes among its test clips."""
    accuracies = []
    for _, test in folds.splits:
        _, index, counts = np.unique(folds.labels[test], return_inverse=True, return_counts=True)
        accuracies.append(np.mean(np.bincount(index, right[test]) / counts))
    return np.array(accuracies)


def accuracy_interval(right: Bool[np.ndarray, " clip"], task: ProbeTask) -> tuple[float, float]:
    """Return the 95 % interval of the mean balanced accuracy over folds, for the test prompts, with probes as trained.

    BCa bootstrap of prompts. The mean is a weighted mean over clips; each resample is normalised by its own total
    weight. If the same fraction of every prompt's clips is right (all of them, for a perfect probe), resamples cannot
    differ, and the interval is the exact one for n independent successes and failures (Clopper & Pearson 1934): a
    perfect probe has (0.025 ** (1 / n), 1). It covers at least as often as nominal for fractions, too, whose variance
    is never larger.

    The unit is the prompt, in the bootstrap, too, even if contexts are held out: a prompt's clips have initial noise of
    their own, so that for the contexts at hand its errors are independent of its partners'. For contexts that are not
    in the study, the interval is too narrow if partners err together. Values have equal weight in a balanced accuracy,
    so the value with the fewest prompts limits n: as if all values had as few.
    """
    weights = np.zeros(len(right))
    for _, test in task.true.splits:
        _, index, counts = np.unique(task.true.labels[test], return_inverse=True, return_counts=True)
        weights[test] = 1 / (len(task.true.splits) * len(counts) * counts[index])
    hits, totals = np.bincount(task.groups, weights * right), np.bincount(task.groups, weights)
    fractions = hits / totals
    if np.ptp(fractions) > _ROUNDING:
        return bootstrap_interval(_ratio_of_sums, (hits, totals))
    prompts = np.unique(task.group_labels, return_counts=True)[1]
    n = len(prompts) * int(prompts.min())
    exact = binomtest(round(fractions.mean() * n), n).proportion_ci(method="exact")
    return float(exact.low), float(exact.high)


def _ratio_of_sums(hits: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(hits.sum(axis) / weights.sum(axis))
