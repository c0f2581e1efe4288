"""Intervals of features' concept scores, by bootstrap over prompts."""

import numpy as np
from jaxtyping import Bool, Float

from analyses.sae.concept_labels import ConceptLabels
from analyses.sae.feature_scores import SCORES, Responses
from analyses.statistics import expanded_confidence

RESAMPLES = 2000
CONFIDENCE = 0.95

Interval = tuple[Float[np.ndarray, " feature"], Float[np.ndarray, " feature"]]


def score_intervals(
    clip_mean: Float[np.ndarray, "clip feature"], labels: ConceptLabels, value: str, seed: int = 0
) -> dict[str, Interval]:
    """Compute 95 % percentile intervals of the scores of some features for a concept value.

    Prompts that have the value and prompts that do not are resampled separately, each with all its clips; all features
    and scores use the same resamples. The level is `expanded_confidence` for the smaller of the two numbers of prompts.
    An interval is a point where no resample differs, such as of a feature that separates all clips.

    Args:
        clip_mean: the features' mean activations in the clips of `labels`.
        labels: the labels of the value's concept.
        value: a value with an AUROC (`ConceptLabels.has_auroc`).
        seed: seed of the resamples.

    Returns:
        The ends of the intervals of "auroc", "tfidf", "diff" and "cohens_d".
    """
    rng = np.random.default_rng(seed)
    has = labels.prompt_labels == value
    drawn = _times_drawn(has, rng), _times_drawn(~has, rng)
    resampled = {
        "auroc": _resampled_aurocs(clip_mean, labels, has, *drawn),
        **_resampled_scores(clip_mean, labels, has, *drawn),
    }
    tail = (1 - expanded_confidence(CONFIDENCE, int(min(has.sum(), (~has).sum())))) / 2
    return {
        name: (np.quantile(values, tail, axis=0), np.quantile(values, 1 - tail, axis=0))
        for name, values in resampled.items()
    }


def _times_drawn(
    some: Bool[np.ndarray, " any_prompt"], rng: np.random.Generator
) -> Float[np.ndarray, "resample prompt"]:
    """Draw as many of some prompts as there are, with replacement: how often each of them is drawn."""
    n = int(some.sum())
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


def _resampled_aurocs(
    clip_mean: Float[np.ndarray, "clip feature"],
    labels: ConceptLabels,
    has: Bool[np.ndarray, " prompt"],
    with_value: Float[np.ndarray, "resample positive"],
    without: Float[np.ndarray, "resample negative"],
) -> Float[np.ndarray, "resample feature"]:
    """Return each feature's AUROC in each resample: the fraction of pairs of clips that it orders rightly."""
    clips = np.bincount(labels.prompt)
    n_pairs = (with_value @ clips[has]) * (without @ clips[~has])
    membership = np.equal.outer(np.arange(len(has)), labels.prompt).astype(float)
    aurocs = np.empty((len(with_value), clip_mean.shape[1]))
    for feature, mean in enumerate(clip_mean.T):
        wins = _wins(mean, membership[has], membership[~has])
        aurocs[:, feature] = np.einsum("rp,pn,rn->r", with_value, wins, without, optimize=True) / n_pairs
    return aurocs


def _wins(
    mean: Float[np.ndarray, " clip"],
    with_value: Float[np.ndarray, "positive clip"],
    without: Float[np.ndarray, "negative clip"],
) -> Float[np.ndarray, "positive negative"]:
    """Count, for two prompts, the pairs of their clips in which the first one's is larger; ties count one half."""
    positive, negative = with_value.any(axis=0), without.any(axis=0)
    first, second = mean[positive][:, None], mean[negative][None]
    larger = (first > second) + 0.5 * (first == second)
    return with_value[:, positive] @ larger @ without[:, negative].T


def _resampled_scores(
    clip_mean: Float[np.ndarray, "clip feature"],
    labels: ConceptLabels,
    has: Bool[np.ndarray, " prompt"],
    with_value: Float[np.ndarray, "resample positive"],
    without: Float[np.ndarray, "resample negative"],
) -> dict[str, Float[np.ndarray, "resample feature"]]:
    """Return each feature's other scores in each resample."""
    sums, squares, clips = (
        labels.by_prompt(of_clips) for of_clips in (clip_mean, clip_mean**2, np.ones((len(clip_mean), 1)))
    )
    both = [
        Responses((drawn @ sums[some])[None], (drawn @ squares[some])[None], drawn @ clips[some])
        for drawn, some in ((with_value, has), (without, ~has))
    ]
    return {name: SCORES[name](*both) for name in ("tfidf", "diff", "cohens_d")}
