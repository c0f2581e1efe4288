"""Bradley–Terry scores of paired preferences with ties, and their intervals over listeners."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from analyses.statistics import ClusterBootstrap, cluster_bootstrap

Wins = Float[np.ndarray, "*sample condition other"]
"""How often a condition was preferred to each other one."""
Ties = Float[np.ndarray, "*sample condition other"]
"""How often neither was preferred; symmetric."""

PRIOR_SD = 2.0
"""Standard deviation of the normal prior of scores where the answers alone have no finite estimate."""
EQUAL_SCORES = 1e-8
"""Scores that differ by less are equal: the solver stops, and numbers are rounded, far below that."""
_ITERATIONS = 100
_CONVERGED = 1e-10
_LONGEST_STEP = 2.0


class Counts(NamedTuple):
    """The preferences of each listener: wins and ties."""

    wins: Float[np.ndarray, "listener condition other"]
    ties: Float[np.ndarray, "listener condition other"]


def counts_of(preferences: pd.DataFrame, conditions: tuple[str, ...]) -> Counts:
    """Count the preferences of each listener, in the order of listeners' numbers."""
    listeners = {number: place for place, number in enumerate(sorted(preferences["listener"].unique()))}
    places = {name: place for place, name in enumerate(conditions)}
    wins, ties = np.zeros((2, len(listeners), len(conditions), len(conditions)))
    for row in preferences.itertuples():
        who, first, second = listeners[row.listener], places[row.first], places[row.second]
        if row.preferred == 0.5:
            ties[who, first, second] += 1
            ties[who, second, first] += 1
        elif row.preferred == 1:
            wins[who, first, second] += 1
        else:
            wins[who, second, first] += 1
    return Counts(wins, ties)


def bradley_terry(wins: Wins, ties: Ties) -> Float[np.ndarray, "*sample condition"]:
    """Return the scores of conditions, the logarithms of Bradley–Terry strengths, which have the mean 0.

    The model with ties is Davidson's (Journal of the American Statistical Association 65, 1970): with strengths p and a
    common ν, one is preferred with a probability in proportion to p_i, the other to p_j, neither to ν sqrt(p_i p_j).
    Maximum likelihood by Newton's method. Where it is not finite, because some conditions never lost to others (see
    `is_separated`), scores have a normal prior of standard deviation `PRIOR_SD`.
    """
    shape = wins.shape[:-1]
    n = shape[-1]
    won, tied = wins.reshape(-1, n, n), ties.reshape(-1, n, n)
    prior = is_separated(won, tied) / PRIOR_SD**2
    # Without wins, ν has no finite estimate, and scores are equal anyway.
    has_ties = (tied.sum(axis=(1, 2)) > 0) & (won.sum(axis=(1, 2)) > 0)
    scores, log_tie = np.zeros((len(won), n)), np.zeros(len(won))
    for _ in range(_ITERATIONS):
        gradient, curvature = _derivatives(won, tied, scores, log_tie, prior, has_ties)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, _LONGEST_STEP / np.abs(step).max(axis=1, keepdims=True).clip(min=1e-300))
        scores, log_tie = scores + step[:, :n], log_tie + step[:, n]
        if np.abs(step).max(initial=0.0) < _CONVERGED:
            break
    return (scores - scores.mean(axis=1, keepdims=True)).reshape(shape)


def is_separated(wins: Wins, ties: Ties) -> Bool[np.ndarray, "*sample"]:
    """Whether no finite scores exist: one of two groups of the conditions never lost to the other (Ford 1957)."""
    n = wins.shape[-1]
    reaches = (wins + ties > 0) | np.eye(n, dtype=bool)
    for _ in range(n.bit_length()):  # each time, twice as many steps from condition to condition
        reaches = reaches.astype(np.float32) @ reaches.astype(np.float32) > 0
    return np.asarray(~reaches.all(axis=(-2, -1)))


def score_intervals(counts: Counts, confidence: float, seed: int) -> ClusterBootstrap:
    """Return Bradley–Terry scores with BCa bootstrap intervals over whole listeners."""
    n = counts.wins.shape[-1]
    samples = tuple(np.moveaxis(np.concatenate([counts.wins, counts.ties], axis=2), 2, 0))

    def scores(*totals: np.ndarray) -> np.ndarray:
        both = np.stack(totals, axis=-1)
        return bradley_terry(both[..., :n], both[..., n:])

    return cluster_bootstrap(samples, scores, confidence, seed=seed)


def ranks(scores: Float[np.ndarray, " condition *sample"]) -> Float[np.ndarray, " condition *sample"]:
    """Return ranks over conditions: 1 and how many scores are higher, so that equal ones share a rank; NaN for NaN."""
    higher = scores[None] > scores[:, None] + EQUAL_SCORES
    return np.where(np.isnan(scores), np.nan, 1.0 + higher.sum(axis=1))


def preferred_share(counts: Counts) -> Float[np.ndarray, "condition other"]:
    """Return how often each condition was preferred to each other one, ties as half; NaN where never compared."""
    wins, ties = counts.wins.sum(axis=0), counts.ties.sum(axis=0)
    total = wins + wins.T + ties
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, (wins + ties / 2) / np.where(total > 0, total, 1), np.nan)


def _derivatives(
    wins: Float[np.ndarray, "sample condition condition"],
    ties: Float[np.ndarray, "sample condition condition"],
    scores: Float[np.ndarray, "sample condition"],
    log_tie: Float[np.ndarray, " sample"],
    prior: Float[np.ndarray, " sample"],
    has_ties: Bool[np.ndarray, " sample"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient of the log-likelihood and its negative second derivatives, by the scores and log ν."""
    n = scores.shape[1]
    half = (scores[:, :, None] - scores[:, None, :]) / 2
    # Relative to the tie's weight without ν.
    up, down = np.exp(half), np.exp(-half)
    tie = np.where(has_ties, np.exp(log_tie), 0.0)[:, None, None]
    total = up + down + tie
    p_up, p_tie = up / total, tie / total
    expected = p_up + p_tie / 2
    compared = wins + wins.swapaxes(1, 2) + ties
    gradient = np.zeros((len(scores), n + 1))
    gradient[:, :n] = (wins + ties / 2 - compared * expected).sum(axis=2) - prior[:, None] * scores
    gradient[:, n] = np.where(has_ties, (ties - compared * p_tie).sum(axis=(1, 2)) / 2, 0.0)
    # Variances and covariance of half the difference of wins, and of a tie.
    p_down = 1 - p_up - p_tie
    of_scores = compared * (p_up + p_down - (p_up - p_down) ** 2) / 4
    of_both = -compared * (p_up - p_down) * p_tie / 2
    of_tie = compared * p_tie * (1 - p_tie)
    curvature = np.zeros((len(scores), n + 1, n + 1))
    curvature[:, :n, :n] = -of_scores
    places = np.arange(n)
    # Scores have no zero point: their mean is held, which changes nothing else.
    curvature[:, places, places] += of_scores.sum(axis=2) + prior[:, None]
    curvature[:, :n, :n] += 1.0 / n
    curvature[:, :n, n] = curvature[:, n, :n] = of_both.sum(axis=2)
    curvature[:, n, n] = np.where(has_ties, of_tie.sum(axis=(1, 2)) / 2, 1.0)
    return gradient, curvature
