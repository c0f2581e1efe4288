"""Linear probes: from which sites and steps a concept can be decoded, on prompts not used in training."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from analyses.probes.ridge import descriptor_tasks, ridge_dataset, ridge_scores
from analyses.probes.significance import (
    permutation_p,
    shuffles_per_probe,
    smallest_p,
    too_few_for_one,
    too_few_prompts,
)
from analyses.probes.spec import ProbeSpec
from analyses.statistics import bootstrap_interval
from cache import ActivationCache
from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.sites import listed_sites, numbered_site
from workbench.prompts.reading import SAME
from workbench.seeds import random_state
from workbench.studies.study import Study
from workbench.validation import validated

_log = logging.getLogger(__name__)

KIND = "probes"
SCHEMA_VERSION = 3
MAX_ITERATIONS = 1000
TRIES = 50  # shuffles drawn for each one needed before giving up
_ROUNDING = 1e-9  # fractions of right clips that differ by less are equal


class Folds(NamedTuple):
    """Labels of clips and their cross-validation folds: (train, test) clip positions, each clip tested once."""

    labels: Shaped[np.ndarray, " clip"]
    splits: list[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]


class ProbeTask(NamedTuple):
    """A concept prepared for probing, the same at all sites and steps."""

    clips: Int[np.ndarray, " clip"]  # rows of the clip table that have a value of the concept
    groups: Int[np.ndarray, " clip"]  # prompts, from 0
    held_together: Literal["context", "prompt"]
    together: Int[np.ndarray, " clip"]  # clips with the same number are held out together
    true: Folds
    spec: ProbeSpec

    @property
    def group_labels(self) -> Shaped[np.ndarray, " group"]:
        """Value of each prompt."""
        return _labels_of_groups(self.true.labels, self.groups)

    def shuffled(self, n: int, site: str = "", step: int = 0) -> Iterator[Folds]:
        """Yield `n` cross-validations of labels shuffled between prompts, different ones for each site and step."""
        rng = np.random.default_rng([self.spec.seed, step, *site.encode()])
        return islice(
            filter(_is_sound, _shuffles(self.true.labels, self.groups, self.together, self.spec, rng)), n
        )


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


def asked_probes(study: Study, sites: str | Sequence[str] = (), **options: Any) -> ProbeSpec:
    """Return the spec for probing a study, whose sites may be written with its model's names of blocks.

    `options` are further fields of `ProbeSpec`; without descriptors they are those of the study's prompt set. Raises
    UserError for unknown or invalid options.
    """
    named = [numbered_site(site, study.block_names) for site in listed_sites(sites)]
    descriptors = options.pop("descriptors", ()) or study.spec.prompts.descriptors
    return validated(ProbeSpec, {"sites": named, "descriptors": descriptors, **options}, "Invalid probes")


def run_probes(
    study: Study,
    spec: ProbeSpec,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] = _log.warning,
) -> xr.Dataset:
    """Probe a study's concepts at its sites and steps; save and return the result "probes".

    The input of a probe is the activations of a clip in one pass, averaged over tokens; clips without a value of a
    concept are left out of its probes. See `probe_arrays` for the metrics, and `analyses.probes.ridge` for those of
    descriptors. `progress(done, total)` counts (site, step) cells.

    A concept or descriptor that cannot be probed is skipped: `note` is called with the reason, which the attribute
    `skipped` keeps.

    Raises:
        UserError: if the study lacks a requested site, step, pass or concept, none of the concepts can be probed (a
            value has too few prompts for the folds), or another process is probing the study.
    """
    started = time.monotonic()
    with study.making("probes"):
        cache = study.cache
        cells = list(product(spec.sites or cache.sites, spec.steps or cache.plan.steps))
        for site, step in cells:  # before any work: raises if unknown
            cache.channels(site)
            cache.positions("step", [step])
        cache.positions("pass", [spec.pass_name])
        tasks, skipped = _concept_tasks(study, spec)
        measured, unmeasured = descriptor_tasks(study, spec)
        skipped |= unmeasured
        for sentence in filter(
            None, [*skipped.values(), *_insignificant(tasks, len(cells)), study.replaced("probes", spec)]
        ):
            note(sentence)

        scores, of_descriptors, n_shuffles = [], [], shuffles_per_probe(spec.shuffles, len(cells))
        for done, (site, step) in enumerate(cells):
            if progress:
                progress(done, len(cells))
            activations = pooled_activations(cache, site, step, spec.pass_name)
            scores.append(
                [
                    score_cell(activations[task.clips], task, task.shuffled(n_shuffles, site, step))
                    for task in tasks.values()
                ]
            )
            of_descriptors.append(
                [
                    ridge_scores(activations[each.clips], each, each.shuffled(n_shuffles, site, step))
                    for each in measured.values()
                ]
            )
        if progress:
            progress(len(cells), len(cells))
        result = _dataset(scores, tasks, spec, cache).assign_attrs(skipped=json.dumps(skipped))
        if measured:
            sites, steps = (result[name].values.tolist() for name in ("site", "step"))
            result = result.merge(ridge_dataset(of_descriptors, measured, sites, steps))
        return study.save_result("probes", result, spec, time.monotonic() - started)


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


def pooled_activations(
    cache: ActivationCache, site: str, step: int, pass_name: str
) -> Float[np.ndarray, "clip channel"]:
    """Return every clip's activations at one site, step and pass, averaged over tokens; read shard by shard.

    Raises:
        UserError: if the cache does not have the site, step or pass, or its values are not finite.
    """
    n_clips, size = cache.plan.n_clips, cache.plan.clips_per_shard
    shards = [list(range(first, min(first + size, n_clips))) for first in range(0, n_clips, size)]
    acts = [cache.read(site, clips=clips, steps=[step], passes=[pass_name]) for clips in shards]
    activations = np.concatenate([block[:, 0, 0].mean(axis=1, dtype=np.float64) for block in acts])
    if not np.isfinite(activations).all():
        raise UserError(
            f"{site} has NaN or infinite activations at step {step}, which a valid cache never has. Run "
            "`workbench cache verify` on it, or trace again."
        )
    return activations


def _concepts(study: Study, spec: ProbeSpec) -> list[str]:
    known = [name.removeprefix("label_") for name in study.clips.columns if name.startswith("label_")]
    for concept in spec.concepts:
        if concept not in known:
            raise UserError(
                f"The clips of {study.path} have no concept '{concept}'; they have {', '.join(known)}."
            )
    return list(spec.concepts) or known


def _concept_task(study: Study, concept: str, spec: ProbeSpec) -> ProbeTask:
    labels = study.clips[f"label_{concept}"].to_numpy(str)
    clips = np.flatnonzero(labels != "")
    others = study.clips.filter(regex="^label_").drop(columns=f"label_{concept}")
    contexts = np.array(["|".join(map(_escaped, values)) for values in others.to_numpy(str)])
    # Numbered in order of appearance, so that folds and shuffles do not depend on the hashes.
    groups, _ = pd.factorize(study.clips["encoding"])
    try:
        _check_distinguishable(study.clips.iloc[clips], concept)
        task = probe_task(labels[clips], groups[clips], contexts[clips], spec)
    except UserError as error:
        raise UserError(f"Concept '{concept}' cannot be probed: {error}") from error
    return task._replace(clips=clips)


def _check_distinguishable(clips: pd.DataFrame, concept: str) -> None:
    """Raise UserError for prompts with different values that are the same tokens to the model."""
    prompts = clips.drop_duplicates(["encoding", f"label_{concept}"])
    same = prompts[prompts.duplicated("encoding", keep=False)]
    if len(same):
        one, other = same[same["encoding"] == same["encoding"].iloc[0]]["prompt"].iloc[:2]
        raise UserError(f"{quoted(one)} and {quoted(other)} have different values, but {SAME}.")


def _escaped(value: str) -> str:
    """Escape a value's name for a list separated by bars."""
    return value.replace("\\", r"\\").replace("|", r"\|")


def _concept_tasks(study: Study, spec: ProbeSpec) -> tuple[dict[str, ProbeTask], dict[str, str]]:
    """Return the tasks of the concepts that can be probed, and why others cannot; raise UserError if none can."""
    tasks, skipped = {}, {}
    for concept in _concepts(study, spec):
        try:
            tasks[concept] = _concept_task(study, concept, spec)
        except UserError as error:
            skipped[concept] = str(error)
    if not tasks:
        raise UserError(" ".join(skipped.values()))
    return tasks, skipped


def _insignificant(tasks: dict[str, ProbeTask], n_cells: int) -> list[str]:
    """Return a sentence for each concept of which no probe can be significant, and one if no single probe can."""
    sentences = {concept: too_few_prompts(task.group_labels) for concept, task in tasks.items()}
    lone = {too_few_for_one(task.group_labels, n_cells * len(tasks)) for task in tasks.values()}
    return [
        *(f"No probe of {concept} can be significant. {text}" for concept, text in sentences.items() if text),
        *sorted(filter(None, lone)),
    ]


def probe_task(
    labels: Shaped[np.ndarray, " clip"],
    groups: Shaped[np.ndarray, " clip"],
    contexts: Shaped[np.ndarray, " clip"],
    spec: ProbeSpec,
) -> ProbeTask:
    """Prepare the folds and shuffled labels of one concept; takes and raises the same as `probe_arrays`."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    group_labels = labels[first]
    mixed = labels != group_labels[group]
    if mixed.any():
        raise UserError(f"each prompt must have one value; clips of prompt {groups[mixed][0]} have several.")
    values, counts = np.unique(group_labels, return_counts=True)
    if len(values) < 2:
        raise UserError(f"a probe needs at least two values; its clips have {len(values)}.")
    task = _arranged(labels, group, contexts, spec)
    if task is None:
        fewer = (
            spec.model_copy(update={"folds": folds})
            for folds in range(min(spec.folds, counts.min() + 1) - 1, 1, -1)
        )
        works = next((less.folds for less in fewer if _arranged(labels, group, contexts, less)), None)
        advice = (
            f"probe with {works} folds (--folds {works}), or trace more prompts"
            if works
            else "trace more prompts"
        )
        raise UserError(
            f"no {spec.folds} folds of its {len(group_labels)} prompts all train on every value "
            f"('{values[counts.argmin()]}' has {counts.min()} prompts): {advice}."
        )
    return task


def _arranged(
    labels: Shaped[np.ndarray, " clip"],
    group: Int[np.ndarray, " clip"],
    contexts: Shaped[np.ndarray, " clip"],
    spec: ProbeSpec,
) -> ProbeTask | None:
    """Return the task with whole contexts held out, or else single prompts; None if neither gives valid folds."""
    arrangements: dict[Literal["context", "prompt"], np.ndarray] = {
        "context": _joined(contexts, group),
        "prompt": group,
    }
    for held_together, together in arrangements.items():
        if min(len(np.unique(together[labels == value])) for value in np.unique(labels)) < spec.folds:
            continue
        true = _folds(labels, together, spec)
        if _is_sound(true) and _can_be_shuffled(labels, group, together, spec):
            return ProbeTask(np.arange(len(labels)), group, held_together, together, true, spec)
    return None


def _joined(
    contexts: Shaped[np.ndarray, " clip"], group: Int[np.ndarray, " clip"]
) -> Int[np.ndarray, " clip"]:
    """Number the contexts, merging those that share a prompt so that its clips are held out together."""
    names, context = np.unique(contexts, return_inverse=True)
    n = len(names) + group.max() + 1
    links = coo_array((np.ones(len(group)), (context, len(names) + group)), shape=(n, n))
    return connected_components(links, directed=False)[1][context]


def _shuffles(
    labels: Shaped[np.ndarray, " clip"],
    group: Int[np.ndarray, " clip"],
    together: Int[np.ndarray, " clip"],
    spec: ProbeSpec,
    rng: np.random.Generator,
) -> Iterator[Folds]:
    """Yield folds of labels shuffled between groups, endlessly; not all of them are valid."""
    group_labels = _labels_of_groups(labels, group)
    while True:
        yield _folds(rng.permutation(group_labels)[group], together, spec)


def _labels_of_groups(
    labels: Shaped[np.ndarray, " clip"], group: Int[np.ndarray, " clip"]
) -> Shaped[np.ndarray, " group"]:
    return labels[np.unique(group, return_index=True)[1]]


def _can_be_shuffled(
    labels: Shaped[np.ndarray, " clip"],
    group: Int[np.ndarray, " clip"],
    together: Int[np.ndarray, " clip"],
    spec: ProbeSpec,
) -> bool:
    """Whether at least one in `TRIES` shuffles has valid folds."""
    drawn = islice(
        _shuffles(labels, group, together, spec, np.random.default_rng(spec.seed)), TRIES * spec.shuffles
    )
    return len(list(islice(filter(_is_sound, drawn), spec.shuffles))) == spec.shuffles


def _is_sound(folds: Folds) -> bool:
    """Whether every fold has test clips, and trains on every class."""
    classes = len(np.unique(folds.labels))
    return all(
        len(test) > 0 and len(np.unique(folds.labels[train])) == classes for train, test in folds.splits
    )


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


def _folds(
    labels: Shaped[np.ndarray, " clip"], together: Shaped[np.ndarray, " clip"], spec: ProbeSpec
) -> Folds:
    splitter = StratifiedGroupKFold(spec.folds, shuffle=True, random_state=random_state(spec.seed))
    return Folds(labels, list(splitter.split(labels, labels, together)))


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


def _description(spec: ProbeSpec) -> str:
    return (
        f"logistic regression, L2 penalty with C={spec.C:g}, balanced class weights, on token means "
        f"standardised by the training clips; {spec.folds} folds, stratified by value, grouped by context or prompt"
    )


def _dataset(
    scores: list[list[CellScores]], tasks: dict[str, ProbeTask], spec: ProbeSpec, cache: ActivationCache
) -> xr.Dataset:
    """Make the result from the scores of each (site, step) cell and concept."""
    sites, steps = spec.sites or tuple(cache.sites), spec.steps or cache.plan.steps
    dims = ("site", "step", "concept")
    shape = (len(sites), len(steps), len(tasks))

    def variable(name: str) -> tuple[tuple[str, ...], np.ndarray]:
        values = np.array([[getattr(score, name) for score in cell] for cell in scores])
        return (*dims, "fold")[: values.ndim + 1], values.reshape(*shape, *values.shape[2:])

    dataset = xr.Dataset(
        {name: variable(name) for name in CellScores._fields if name != "shuffled"},
        {
            "concept": list(tasks),
            "site": list(sites),
            "step": list(steps),
            "fold": np.arange(spec.folds),
            "sigma": ("step", [cache.plan.sigmas[position] for position in cache.positions("step", steps)]),
        },
        {"kind": KIND, "schema_version": SCHEMA_VERSION, "pass": spec.pass_name, "probe": _description(spec)},
    )
    dataset["accuracy_mean"] = dataset["accuracy"].mean("fold")
    dataset["control_mean"] = dataset["control"].mean("fold")
    dataset["chance"] = ("concept", [1 / len(np.unique(task.true.labels)) for task in tasks.values()])
    dataset["n"] = ("concept", [len(task.clips) for task in tasks.values()])
    dataset["groups"] = ("concept", [len(np.unique(task.groups)) for task in tasks.values()])
    dataset["held_together"] = ("concept", [task.held_together for task in tasks.values()])
    return _tested(dataset, scores, tasks).transpose("concept", "site", "step", "fold")


def _tested(dataset: xr.Dataset, scores: list[list[CellScores]], tasks: dict[str, ProbeTask]) -> xr.Dataset:
    """Add p-values and selectivity; a concept's null pools the accuracies with shuffled labels of all its cells.

    Selectivity subtracts the null's mean. A cell's own control is the mean of a few shuffles, whose noise would make
    equal accuracies look different; it has the same expectation, because test prompts are not in training.
    """
    nulls = [np.concatenate([cell.shuffled for cell in cells]) for cells in zip(*scores, strict=True)]
    p_values = [
        permutation_p(
            dataset["accuracy_mean"].sel(concept=concept).values, null, smallest_p(task.group_labels)
        )
        for (concept, task), null in zip(tasks.items(), nulls, strict=True)
    ]
    null_mean = xr.DataArray([null.mean() for null in nulls], dims="concept")
    return dataset.assign(
        p_value=(("concept", "site", "step"), np.stack(p_values)),
        selectivity=dataset["accuracy_mean"] - null_mean,
        null_mean=null_mean,
        null_sd=("concept", [null.std(ddof=1) for null in nulls]),
        null_n=("concept", [len(null) for null in nulls]),
    )
