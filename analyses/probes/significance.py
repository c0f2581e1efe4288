"""Whether probes are more accurate than probes of shuffled labels: a permutation test with refitted probes.

Clips that are tested are not independent: folds share the probe that predicts them, and training sets overlap. The
cross-validated accuracy of noise therefore varies more than that of as many independent clips (Combrisson & Jerbi
2015, doi 10.1016/j.jneumeth.2015.01.010), and the null is that of probes fitted anew to shuffled labels (Ojala &
Garriga 2010, JMLR 11:1833). The probes of one concept share prompts, labels, classes and folds, so they share the null.
"""

import math

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from analyses.statistics import ALPHA

LEAST_SHUFFLED = 100
"""Probes of shuffled labels that the null of a concept is made of, at least."""


def shuffles_per_probe(asked: int, n_probes: int) -> int:
    """How often the labels are shuffled for each of a concept's probes: more than asked for where there are few."""
    return max(asked, math.ceil(LEAST_SHUFFLED / n_probes))


def permutation_p(
    accuracy: Float[np.ndarray, "*cells"], shuffled: Float[np.ndarray, " shuffle"], smallest: float
) -> Float[np.ndarray, "*cells"]:
    """One-sided p-value that probes are no more accurate than those of `shuffled` labels, at least `smallest`.

    It is where the accuracy lies in the prediction interval of one more shuffled accuracy: Student's t with n − 1
    degrees of freedom of (accuracy − mean) / (sd √(1 + 1/n)). Counting the n accuracies that are as high would stop at
    1 / (n + 1), where no cell of a large map is left after correction.
    """
    n = len(shuffled)
    spread = max(shuffled.std(ddof=1) * math.sqrt(1 + 1 / n), np.finfo(float).eps)  # all may be the same
    return np.maximum(stats.t.sf((accuracy - shuffled.mean()) / spread, n - 1), smallest)


def smallest_p(prompt_labels: Shaped[np.ndarray, " prompt"]) -> float:
    """Return the smallest p-value that shuffling these labels can give: the fraction of equivalent arrangements.

    Where values with equally many prompts swap names, the arrangement is equivalent: a probe is as accurate.
    """
    counts = np.unique(prompt_labels, return_counts=True)[1].tolist()
    arrangements = math.factorial(sum(counts)) // math.prod(map(math.factorial, counts))
    alike = math.prod(math.factorial(counts.count(count)) for count in set(counts))
    return alike / arrangements


def too_few_prompts(prompt_labels: Shaped[np.ndarray, " prompt"]) -> str:
    """One sentence for labels that leave no probe significant, however accurate it is; else ""."""
    smallest = smallest_p(prompt_labels)
    if smallest <= ALPHA:
        return ""
    values, counts = np.unique(prompt_labels, return_counts=True)
    sizes = ", ".join(f"{count} of '{value}'" for value, count in zip(values, counts, strict=True))
    return (
        f"{len(prompt_labels)} prompts ({sizes}): smallest possible p is {smallest:.3g}; more prompts are needed for "
        f"p ≤ {ALPHA:g}."
    )
