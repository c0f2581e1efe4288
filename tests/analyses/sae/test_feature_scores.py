"""Scores of features against their formulas, sample by sample."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from analyses.sae.feature_scores import SCORES, Responses, most_specific
from tests.tolerances import OPTIMISED, assert_close

CLIPS, TOKENS, FEATURES = 6, 4, 5


@pytest.fixture
def samples() -> tuple[np.ndarray, np.ndarray]:
    """Activations (clip, token, feature) on positive and on negative prompts; the last feature is dead."""
    draws = np.random.default_rng(0)
    positive, negative = (np.maximum(draws.normal(size=(CLIPS, TOKENS, FEATURES)), 0) for _ in range(2))
    positive[..., 0] += 1.0
    positive[..., -1] = negative[..., -1] = 0.0
    return positive, negative


def responses(values: np.ndarray, groups: int = CLIPS) -> Responses:
    """The responses of one cell."""
    sums, squares = (
        np.stack([of[group::groups].sum(axis=(0, 1)) for group in range(groups)])
        for of in (values, values**2)
    )
    return Responses(sums, squares, float(values.shape[0] * values.shape[1]))


def by_hand(score: str, positive: np.ndarray, negative: np.ndarray) -> float:
    """The score of one feature from its samples."""
    mean_pos, mean_neg = positive.mean(), negative.mean()
    n = len(positive)
    spread = np.sqrt(
        ((n - 1) * positive.std(ddof=1) ** 2 + (n - 1) * negative.std(ddof=1) ** 2) / (2 * n - 2)
    )
    return {
        "tfidf": mean_pos * np.log(1 + 1 / (mean_neg + 1e-6)),
        "diff": mean_pos - mean_neg,
        "ratio": mean_pos / (mean_neg + 1e-6),
        "cohens_d": (mean_pos - mean_neg) / (spread + 1e-6),
        "mean_pos": mean_pos,
    }[score]


@pytest.mark.parametrize("score", [name for name in SCORES if name != "logistic"])
@pytest.mark.parametrize("groups", [CLIPS, 2])
def test_each_score_is_its_formula(samples: tuple[np.ndarray, np.ndarray], score: str, groups: int) -> None:
    found = SCORES[score](*(responses(values, groups) for values in samples))
    flat = [values.reshape(-1, FEATURES) for values in samples]
    assert_close(found, np.array([by_hand(score, flat[0][:, j], flat[1][:, j]) for j in range(FEATURES)]))


def test_the_logistic_score_is_the_weight_that_tells_clips_apart(
    samples: tuple[np.ndarray, np.ndarray],
) -> None:
    found = SCORES["logistic"](*(responses(values) for values in samples))
    means = np.concatenate([values.mean(axis=1) for values in samples])
    labels = [1] * CLIPS + [0] * CLIPS
    expected = LogisticRegression(max_iter=1000).fit(StandardScaler().fit_transform(means), labels).coef_[0]
    np.testing.assert_allclose(found, expected, atol=OPTIMISED)
    assert found.argmax() == 0 and found[-1] == 0


def test_the_largest_scores_above_0_are_chosen() -> None:
    scores = np.array([[0.5, 2.0, 0.5, -1.0], [0.0, -3.0, 1.0, 0.0]])
    assert most_specific(scores, 2).tolist() == [[True, True, False, False], [False, False, True, False]]
    assert most_specific(scores, 4).sum(axis=-1).tolist() == [3, 1]
