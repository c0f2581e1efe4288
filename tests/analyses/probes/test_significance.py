"""The test of probes: calibrated on noise, able to find a planted signal, and never surer than its prompts allow."""

import numpy as np
import pytest

from analyses.probes.folds import ProbeTask, probe_task
from analyses.probes.scores import score_cell, score_task
from analyses.probes.significance import (
    permutation_p,
    shuffles_per_probe,
    smallest_p,
    too_few_for_one,
    too_few_prompts,
)
from analyses.probes.spec import ProbeSpec
from analyses.statistics import MIN_P, benjamini_hochberg


def paired(n_contexts: int, clips: int, spec: ProbeSpec) -> ProbeTask:
    """The task of two prompts for each context, `clips` clips for each prompt."""
    prompts = np.repeat(np.arange(2 * n_contexts), clips)
    return probe_task(np.where(prompts % 2, "fast", "slow"), prompts, prompts // 2, spec)


def test_on_noise_few_probes_are_significant() -> None:
    """A t-test over prompts, as if they were independent, finds 0.105 of these below 0.05 and 0.02 below 0.01."""
    task = paired(14, 3, ProbeSpec(folds=4))
    rng = np.random.default_rng(0)
    cells = [score_cell(rng.normal(size=(84, 12)), task, task.shuffled(2, step=step)) for step in range(200)]
    accuracies = np.array([cell.accuracy.mean() for cell in cells])
    null = np.concatenate([cell.shuffled for cell in cells])
    p_values = permutation_p(accuracies, null, smallest_p(task.group_labels))
    assert 0.02 <= np.mean(p_values < 0.05) <= 0.065
    assert np.mean(p_values < 0.01) <= 0.015


def test_a_planted_signal_is_found() -> None:
    task = paired(14, 2, ProbeSpec(folds=4))
    activations = np.random.default_rng(1).normal(size=(56, 12))
    activations[task.true.labels == "fast", 0] += 2
    assert score_task(activations, task).p_value < 1e-3


@pytest.mark.parametrize(
    ("counts", "smallest"),
    [
        ((3, 3), 2 / 20),
        ((4, 4), 2 / 70),
        ((2, 3), 1 / 10),
        ((2, 2, 2), 6 / 90),
        ((28, 28), 2 / 7648690600760440),
    ],
)
def test_the_smallest_p_is_that_of_the_arrangements_of_the_labels(
    counts: tuple[int, ...], smallest: float
) -> None:
    labels = np.repeat(list("abc")[: len(counts)], counts)
    assert smallest_p(labels) == pytest.approx(smallest)
    assert bool(too_few_prompts(labels)) == (smallest > 0.05)


def test_no_probe_of_eight_prompts_is_surer_than_their_labels_allow() -> None:
    task = paired(4, 1, ProbeSpec(folds=2))
    activations = np.where(task.true.labels == "fast", 1.0, -1.0)[:, None] * np.ones((8, 3))
    scores = score_task(activations, task)
    assert scores.accuracy.mean() == 1
    assert scores.p_value >= 2 / 70
    assert permutation_p(np.array([1.0]), np.full(100, 0.5), 2 / 70) == 2 / 70
    assert permutation_p(np.array([0.5]), np.full(100, 0.5), 2 / 70) == 0.5


def test_shuffles_are_other_ones_at_each_site_and_step_and_the_same_again() -> None:
    task = paired(10, 1, ProbeSpec(folds=4))

    def drawn(site: str, step: int) -> list[tuple[str, ...]]:
        return [tuple(folds.labels) for folds in task.shuffled(3, site, step)]

    cells = [("tf0.mlp", 0), ("tf0.mlp", 4), ("tf1.mlp", 0), ("tf0.block", 0)]
    there = {cell: drawn(*cell) for cell in cells}
    assert len({labels for cell in there.values() for labels in cell}) == 12
    assert {cell: drawn(*cell) for cell in reversed(cells)} == there


@pytest.mark.parametrize(
    ("asked", "n_probes", "shuffles"), [(3, 1, 100), (3, 33, 4), (3, 34, 3), (5, 512, 5)]
)
def test_a_null_is_of_a_hundred_probes_or_more(asked: int, n_probes: int, shuffles: int) -> None:
    assert shuffles_per_probe(asked, n_probes) == shuffles


def test_no_p_is_smaller_than_what_the_shuffled_accuracies_can_support() -> None:
    null = np.random.default_rng(0).normal(0.5, 0.07, 384)
    accuracies = np.array([0.5, 0.65, 0.9, 1.0])
    p_values = permutation_p(accuracies, null, smallest=1e-15)
    assert p_values[0] > p_values[1] > MIN_P
    assert p_values[2:].tolist() == [MIN_P, MIN_P]


@pytest.mark.parametrize(("n_probes", "needed"), [(500, 1), (501, 2), (1000, 2), (1001, 3), (10_000, 20)])
def test_how_many_probes_must_be_significant_together(n_probes: int, needed: int) -> None:
    text = too_few_for_one(np.repeat(["slow", "fast"], 28), n_probes)
    assert (f"unless at least {needed} are" in text) if needed > 1 else not text
    p_values = np.ones(n_probes)
    for found in (needed - 1, needed):
        p_values[:found] = MIN_P
        significant = benjamini_hochberg(p_values)[0] <= 0.05 + 1e-12
        assert significant == (found == needed)


def test_with_few_prompts_many_probes_must_be_significant_together() -> None:
    assert "smallest p is 0.0286" in too_few_for_one(np.repeat(["slow", "fast"], 4), 100)
    assert "at least 58 are" in too_few_for_one(np.repeat(["slow", "fast"], 4), 100)
    assert not too_few_for_one(np.repeat(["slow", "fast"], 3), 100), "too_few_prompts says more"
