"""Bradley–Terry scores: closed forms, the published model's likelihood, separation, and intervals over listeners."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from analyses.listening.preferences import (
    PRIOR_SD,
    Counts,
    bradley_terry,
    is_separated,
    preferred_share,
    ranks,
    score_intervals,
)
from tests.tolerances import OPTIMISED

TRUE = np.array([-1.0, -0.2, 0.3, 0.9])
TIE = 0.5


def drawn(listeners: int, each: int, seed: int = 0) -> Counts:
    """Preferences of listeners who answer each pair `each` times, by the true scores."""
    rng = np.random.default_rng(seed)
    wins, ties = np.zeros((2, listeners, len(TRUE), len(TRUE)))
    for listener in range(listeners):
        for i, j in itertools.combinations(range(len(TRUE)), 2):
            weights = np.exp([TRUE[i], (TRUE[i] + TRUE[j]) / 2, TRUE[j]]) * [1, TIE, 1]
            won, tied, lost = rng.multinomial(each, weights / weights.sum())
            wins[listener, i, j], wins[listener, j, i] = won, lost
            ties[listener, [i, j], [j, i]] = tied
    return Counts(wins, ties)


def test_two_conditions_have_the_odds_as_their_difference() -> None:
    scores = bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]), np.zeros((2, 2)))
    assert scores == pytest.approx([np.log(3) / 2, -np.log(3) / 2])
    # Ties are evenly shared, so that they change the difference of two conditions only through ν.
    tied = bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]), np.array([[0.0, 20.0], [20.0, 0.0]]))
    assert tied == pytest.approx(scores)


def test_the_estimate_maximises_davidson_s_likelihood() -> None:
    counts = drawn(3, 6)
    wins, ties = counts.wins.sum(axis=0), counts.ties.sum(axis=0)

    def unlikelihood(values: np.ndarray) -> float:
        scores, log_tie = np.append(values[:-1], -values[:-1].sum()), values[-1]
        total = 0.0
        for i, j in itertools.combinations(range(len(scores)), 2):
            parts = np.array([scores[i], scores[j], log_tie + (scores[i] + scores[j]) / 2])
            total -= np.array([wins[i, j], wins[j, i], ties[i, j]]) @ (parts - np.logaddexp.reduce(parts))
        return total

    best = minimize(unlikelihood, np.zeros(4), tol=1e-12).x
    assert bradley_terry(wins, ties)[:3] == pytest.approx(best[:3], abs=OPTIMISED)


def test_samples_are_computed_alike_one_by_one_and_together() -> None:
    counts = drawn(4, 3)
    together = bradley_terry(counts.wins, counts.ties)
    for place in range(4):
        assert bradley_terry(counts.wins[place], counts.ties[place]) == pytest.approx(together[place])


def test_scores_of_a_condition_that_always_wins_are_regularised() -> None:
    wins, none = np.array([[0.0, 5.0], [0.0, 0.0]]), np.zeros((2, 2))
    assert is_separated(wins, none)
    assert not is_separated(wins, np.array([[0.0, 1.0], [1.0, 0.0]]))
    high, low = bradley_terry(wins, none)
    # Where the prior's pull is that of the answers: 5 (1 - p) = score / SD².
    assert high == -low and 5 / (1 + np.exp(2 * high)) == pytest.approx(high / PRIOR_SD**2)


def test_only_ties_are_no_preference() -> None:
    assert bradley_terry(np.zeros((2, 2)), np.array([[0.0, 4.0], [4.0, 0.0]])) == pytest.approx([0, 0])


def test_intervals_over_listeners_hold_the_true_scores_and_ranks() -> None:
    boot = score_intervals(drawn(16, 6), 0.95, seed=0)
    centred = TRUE - TRUE.mean()
    assert (boot.low <= centred).all() and (centred <= boot.high).all()
    assert ranks(boot.value).tolist() == [4, 3, 2, 1]
    wide = score_intervals(drawn(4, 24), 0.95, seed=0)  # as many answers, of fewer listeners
    assert (wide.high - wide.low).mean() > (boot.high - boot.low).mean()


def test_equal_scores_share_a_rank_whatever_rounding_does() -> None:
    """Two pairs of 5 to 2, and 3 to 3 across: by symmetry two scores are equal, and the other two are."""
    wins = np.array([[0, 5, 3, 3], [2, 0, 3, 3], [3, 3, 0, 5], [3, 3, 2, 0]], dtype=float)
    assert ranks(bradley_terry(wins, np.zeros((4, 4)))).tolist() == [1, 3, 1, 3]
    assert ranks(np.array([0.1 + 0.2, 0.3, 0.31])).tolist() == [2, 2, 1]
    assert np.isnan(ranks(np.full((2, 1), np.nan))).all()


def test_shares_count_ties_as_half() -> None:
    counts = Counts(np.array([[[0.0, 2.0], [1.0, 0.0]]]), np.array([[[0.0, 1.0], [1.0, 0.0]]]))
    share = preferred_share(counts)
    assert share[0, 1] == 0.625 and share[1, 0] == 0.375 and np.isnan(share[0, 0])
