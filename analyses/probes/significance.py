"""Permutation test of probe accuracy, against probes refitted to shuffled labels.

Test clips are not independent: those of a fold are predicted by the same probe, and training sets overlap. The
cross-validated accuracy on noise therefore varies more than that on as many independent clips (Combrisson & Jerbi 2015,
doi 10.1016/j.jneumeth.2015.01.010), so the null comes from probes refitted to shuffled labels (Ojala & Garriga 2010,
JMLR 11:1833). The probes of one concept share prompts, labels, classes and folds, so they share the null.
"""

import math

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from analyses.statistics import ALPHA, MIN_P, fewest_significant
from cache.wording import counted

LEAST_SHUFFLED = 100
"""Minimum number of probes of shuffled labels in the null of a concept."""


def shuffles_per_probe(asked: int, n_probes: int) -> int:
    """Return the number of label shuffles for each of a concept's probes: more than `asked` if there are few probes."""
    return max(asked, math.ceil(LEAST_SHUFFLED / n_probes))


def permutation_p(
    accuracy: Float[np.ndarray, "*cells"], shuffled: Float[np.ndarray, " shuffle"], smallest: float
) -> Float[np.ndarray, "*cells"]:
    """Return the one-sided p-value of probes being no better than those of `shuffled` labels.

    The accuracy is compared with the predictive distribution of one more shuffled accuracy: the p-value is the upper
    tail of Student's t with n − 1 degrees of freedom at (accuracy − mean) / (sd √(1 + 1/n)). Counting how many of the n
    accuracies are as high could not give less than 1 / (n + 1), and no cell of a large map would remain significant
    after correction. The tail of t is an extrapolation, so p is at least `MIN_P`, and at least `smallest`.
    """
    n = len(shuffled)
    spread = max(shuffled.std(ddof=1) * math.sqrt(1 + 1 / n), np.finfo(float).eps)  # all may be equal
    return np.maximum(stats.t.sf((accuracy - shuffled.mean()) / spread, n - 1), max(smallest, MIN_P))


def smallest_p(prompt_labels: Shaped[np.ndarray, " prompt"]) -> float:
    """Return the smallest p-value that shuffling these labels can give: the fraction of equivalent arrangements.

    Arrangements are equivalent if values with equally many prompts only swap names: a probe is then as accurate.
    """
    counts = np.unique(prompt_labels, return_counts=True)[1].tolist()
    arrangements = math.factorial(sum(counts)) // math.prod(map(math.factorial, counts))
    alike = math.prod(math.factorial(counts.count(count)) for count in set(counts))
    return alike / arrangements


def too_few_prompts(prompt_labels: Shaped[np.ndarray, " prompt"]) -> str:
    """Return a sentence if no probe of these labels can be significant, however accurate it is; otherwise ""."""
    smallest = smallest_p(prompt_labels)
    if smallest <= ALPHA:
        return ""
    values, counts = np.unique(prompt_labels, return_counts=True)
    sizes = ", ".join(f"{count} of '{value}'" for value, count in zip(values, counts, strict=True))
    return (
        f"{len(prompt_labels)} prompts ({sizes}): smallest possible p is {smallest:.3g}; more prompts are needed for "
        f"p ≤ {ALPHA:g}."
    )


def too_few_for_one(prompt_labels: Shaped[np.ndarray, " prompt"], n_probes: int) -> str:
    """Return a sentence if a probe of these labels cannot be significant unless others are, else ""."""
    smallest = max(smallest_p(prompt_labels), MIN_P)
    needed = fewest_significant(smallest, n_probes)
    if smallest > ALPHA or needed <= 1:
        return ""
    return (
        f"The smallest p is {smallest:.3g}, so that after correction over {counted(n_probes, 'probe')} none can be "
        f"significant unless at least {needed} are. Probe fewer sites, steps or concepts to find a single one."
    )
