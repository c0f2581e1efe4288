"""How specific each SAE feature is to the positive prompts (TADA, arXiv 2602.11910, Eq. 12, and its code).

μ⁺ and μ⁻ are means, over prompts and tokens, of the features' activations without TopK, relu(pre-activations), on
positive and on negative prompts; σ⁺² and σ⁻² are their variances, n the number of prompts and tokens.

- tfidf: μ⁺ · log(1 + 1 / (μ⁻ + 1e-6))
- diff: μ⁺ - μ⁻
- ratio: μ⁺ / (μ⁻ + 1e-6)
- cohens_d: (μ⁺ - μ⁻) / (s + 1e-6), with s² = ((n⁺ - 1) σ⁺² + (n⁻ - 1) σ⁻²) / (n⁺ + n⁻ - 2)
- mean_pos: μ⁺
- logistic: the weights of a logistic regression that tells positive from negative prompts, on standardised features.
  TADA's code takes tokens as samples; here they are the token means of clips, as the tokens of a clip are not
  independent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

EPSILON = 1e-6
MAX_ITERATIONS = 1000

Scores = Float[np.ndarray, "*cell feature"]


@dataclass(frozen=True)
class Responses:
    """Activations of features on the positive or on the negative prompts, summed over the clips of several groups.

    `sums` and `squares` are sums over the clips and tokens of each group, `n` is the number of clips and tokens in all
    groups together, or in those of each cell.
    """

    sums: Float[np.ndarray, "group *cell feature"]
    squares: Float[np.ndarray, "group *cell feature"]
    n: float | Float[np.ndarray, "*#cell 1"]

    @property
    def mean(self) -> Scores:
        """Mean over prompts and tokens."""
        return self.sums.sum(axis=0) / self.n

    @property
    def spread(self) -> Scores:
        """Sum of the squared differences from the mean."""
        return np.maximum(self.squares.sum(axis=0) - self.n * self.mean**2, 0.0)


def _tfidf(positive: Responses, negative: Responses) -> Scores:
    return positive.mean * np.log(1 + 1 / (negative.mean + EPSILON))


def _diff(positive: Responses, negative: Responses) -> Scores:
    return positive.mean - negative.mean


def _ratio(positive: Responses, negative: Responses) -> Scores:
    return positive.mean / (negative.mean + EPSILON)


def _cohens_d(positive: Responses, negative: Responses) -> Scores:
    pooled = np.sqrt((positive.spread + negative.spread) / (positive.n + negative.n - 2))
    return (positive.mean - negative.mean) / (pooled + EPSILON)


def _mean_pos(positive: Responses, negative: Responses) -> Scores:  # noqa: ARG001 - of the positive prompts alone
    return positive.mean


def _logistic(positive: Responses, negative: Responses) -> Scores:
    """Fit one regression for each cell; every group is one clip."""
    clips = np.concatenate([positive.sums, negative.sums])
    is_positive = np.arange(len(clips)) < len(positive.sums)
    weights = np.empty(clips.shape[1:])
    for cell in np.ndindex(clips.shape[1:-1]):
        # Sums over tokens instead of means: their factor disappears in the standardisation.
        samples = StandardScaler().fit_transform(clips[(slice(None), *cell)])
        with threadpool_limits(1):
            weights[cell] = LogisticRegression(max_iter=MAX_ITERATIONS).fit(samples, is_positive).coef_[0]
    return weights


SCORES: dict[str, Callable[[Responses, Responses], Scores]] = {
    "tfidf": _tfidf,
    "diff": _diff,
    "ratio": _ratio,
    "cohens_d": _cohens_d,
    "mean_pos": _mean_pos,
    "logistic": _logistic,
}
"""Functions of the responses to positive and to negative prompts."""


def most_specific(scores: Scores, k: int) -> Bool[np.ndarray, "*cell feature"]:
    """Mark the `k` features with the largest scores in each cell, of equal ones the first; only scores above 0."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen & (scores > 0)
