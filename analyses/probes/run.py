"""Linear probes: from which sites and steps a concept can be decoded, on prompts not used in training."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from analyses.probes.folds import ProbeTask, probe_task
from analyses.probes.ridge import descriptor_tasks, ridge_dataset, ridge_scores
from analyses.probes.scores import CellScores, score_cell
from analyses.probes.significance import (
    permutation_p,
    shuffles_per_probe,
    smallest_p,
    too_few_for_one,
    too_few_prompts,
)
from analyses.probes.spec import ProbeSpec
from cache import ActivationCache
from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.sites import listed_sites, numbered_site
from workbench.prompts.reading import SAME
from workbench.studies.study import Study
from workbench.validation import validated

_log = logging.getLogger(__name__)

KIND = "probes"
SCHEMA_VERSION = 3


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
