"""How well features identify concept values (AUROC), and how well the best of them does by chance."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from analyses.sae.concept_labels import ConceptLabels, concept_labels
from analyses.statistics import ALPHA

SHUFFLES = 999
FEATURES_AT_ONCE = 4096
# Of a z-score: those of equal labellings differ by rounding.
SLACK = 1e-9


def concept_aurocs(
    clip_mean: Float[np.ndarray, "clip feature"], clips: pd.DataFrame
) -> tuple[list[str], Float[np.ndarray, "feature value"]]:
    """Compute the AUROC of each feature for each value of the `label_<concept>` columns, named "concept=value".

    NaN for a value without one (`ConceptLabels.has_auroc`).
    """
    names, columns = [], []
    for labels in concept_labels(clips):
        for value in labels.values:
            names.append(f"{labels.concept}={value}")
            areas = auroc(clip_mean[labels.clips], labels.has(value))
            columns.append(areas if labels.has_auroc(value) else np.full_like(areas, np.nan))
    return names, np.array(columns, dtype=np.float64).reshape(len(names), clip_mean.shape[1]).T


def auroc(
    scores: Float[np.ndarray, "clip feature"], positive: Bool[np.ndarray, " clip"]
) -> Float[np.ndarray, " feature"]:
    """Return the area under the ROC curve of every column: Mann–Whitney U / number of pairs; ties count one half."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return np.full(scores.shape[1], np.nan)
    rank_sum = rankdata(scores, axis=0)[positive].sum(axis=0)
    return _areas(rank_sum, n_positive, len(positive))


class Chance(NamedTuple):
    """What the best feature reaches when a concept's labels are shuffled between its prompts."""

    auroc: Float[np.ndarray, " value"]  # that it exceeds in 5 % of the shuffles; NaN without an AUROC
    largest_z: Float[np.ndarray, " shuffle"]  # the largest z-score over all features and values
    unit: Float[
        np.ndarray, " value"
    ]  # standard deviation of an AUROC under shuffles, of which z-scores are made

    def corrected_p(self, aurocs: Float[np.ndarray, "feature value"]) -> Float[np.ndarray, "feature value"]:
        """Return p-values of AUROCs above chance, corrected for the number of features and of values.

        The fraction of shuffles, the observed labels among them, in which any feature has as large a z-score for any
        value: the maximum statistic of Westfall & Young (Resampling-Based Multiple Testing, 1993).
        """
        z = (aurocs - 0.5) / self.unit
        at_least = len(self.largest_z) - np.searchsorted(np.sort(self.largest_z), z - SLACK)
        return np.where(np.isnan(z), np.nan, (1 + at_least) / (1 + len(self.largest_z)))


def chance_aurocs(clip_mean: Float[np.ndarray, "clip feature"], clips: pd.DataFrame, seed: int = 0) -> Chance:
    """Shuffle the labels of each concept between its prompts, `SHUFFLES` times.

    Of many features one separates any value well by chance. A feature above `Chance.auroc` is significant at 5 %,
    corrected for the number of features but not for that of values; `Chance.corrected_p` corrects for both.
    """
    rng = np.random.default_rng(seed)
    thresholds, units, largest = [], [], np.full(SHUFFLES, -np.inf)
    for labels in concept_labels(clips):
        # Shuffles move whole prompts: the ranks of a prompt's clips always count together.
        ranks = labels.by_prompt(rankdata(clip_mean[labels.clips], axis=0))
        shuffles = rng.permuted(np.tile(labels.prompt_labels, (SHUFFLES, 1)), axis=1)
        for value in labels.values:
            if not (labels.has_auroc(value) and clip_mean.shape[1]):
                thresholds.append(np.nan)
                units.append(np.nan)
                continue
            has = (shuffles == value).astype(np.float64)
            best, n_positive = _best_areas(has, ranks, labels)
            thresholds.append(np.quantile(best, 1 - ALPHA))
            units.append(float(_unit(labels.has(value).sum(), len(labels.clips))))
            largest = np.maximum(largest, (best - 0.5) / _unit(n_positive, len(labels.clips)))
    return Chance(np.array(thresholds, dtype=float), largest, np.array(units, dtype=float))


def _best_areas(
    has: Float[np.ndarray, "shuffle prompt"],
    ranks: Float[np.ndarray, "prompt feature"],
    labels: ConceptLabels,
) -> tuple[Float[np.ndarray, " shuffle"], Float[np.ndarray, " shuffle"]]:
    """Return the largest AUROC over the features in each shuffle, and how many clips have the value."""
    n_positive = has @ np.bincount(labels.prompt)
    best = np.full(len(has), -np.inf)
    for first in range(0, ranks.shape[1], FEATURES_AT_ONCE):
        rank_sum = has @ ranks[:, first : first + FEATURES_AT_ONCE]
        best = np.maximum(best, _areas(rank_sum, n_positive[:, None], len(labels.clips)).max(axis=1))
    return best, n_positive


def _unit(
    n_positive: Float[np.ndarray, "*shuffle"] | np.integer, n: int
) -> Float[np.ndarray, "*shuffle"] | np.floating:
    """Return the standard deviation of the AUROC of `n` untied clips with random labels."""
    return np.sqrt((n + 1) / (12 * n_positive * (n - n_positive)))


def _areas(
    rank_sum: Float[np.ndarray, "*shuffle feature"], n_positive: int | Float[np.ndarray, "shuffle 1"], n: int
) -> Float[np.ndarray, "*shuffle feature"]:
    """Return areas under ROC curves from sums of the positive clips' ranks among `n` clips."""
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive))
