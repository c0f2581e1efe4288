"""How clips are held out of a probe's training: whole contexts or prompts, and labels shuffled between prompts."""

from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from analyses.probes.spec import ProbeSpec
from cache.errors import UserError
from workbench.seeds import random_state

TRIES = 50  # shuffles drawn for each one needed before giving up


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


def _folds(
    labels: Shaped[np.ndarray, " clip"], together: Shaped[np.ndarray, " clip"], spec: ProbeSpec
) -> Folds:
    splitter = StratifiedGroupKFold(spec.folds, shuffle=True, random_state=random_state(spec.seed))
    return Folds(labels, list(splitter.split(labels, labels, together)))
