"""Orders are balanced over listeners: places, neighbours, sides of a pair, items of a condition."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.workbench.listening.small import make_small
from workbench.listening.config import ListeningConfig
from workbench.listening.orders import steps_of, trial_order, williams


@pytest.fixture(scope="module")
def pairs(table: Path, tmp_path_factory: pytest.TempPathFactory) -> ListeningConfig:
    return make_small(table, tmp_path_factory.mktemp("orders") / "pairs", items=3)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 9])
def test_williams_designs_balance_places_and_neighbours(n: int) -> None:
    design = williams(n)
    assert len(design) == (n if n % 2 == 0 else 2 * n)
    assert all(sorted(row) == list(range(n)) for row in design)
    each = len(design) // n
    assert set(Counter((place, one) for row in design for place, one in enumerate(row)).values()) == {each}
    neighbours = Counter(pair for row in design for pair in pairwise(row))
    assert len(neighbours) == n * (n - 1)
    assert set(neighbours.values()) == {each}


def test_one_treatment_has_one_order() -> None:
    assert williams(1) == [[0]]


def test_every_listener_hears_every_trial_once(pairs: ListeningConfig) -> None:
    expected = sorted(number for number, trial in enumerate(pairs.trials) if trial.kind == "trial")
    for listener in range(7):
        assert sorted(trial_order(pairs, listener)) == expected


def test_each_round_has_every_pair_once(pairs: ListeningConfig) -> None:
    for listener in range(6):
        units = [pairs.trials[number].unit for number in trial_order(pairs, listener)]
        assert [sorted(units[start : start + 3]) for start in (0, 3, 6)] == [[0, 1, 2]] * 3


def test_places_of_pairs_are_balanced_over_listeners(pairs: ListeningConfig) -> None:
    firsts = Counter(pairs.trials[trial_order(pairs, listener)[0]].unit for listener in range(6))
    assert firsts == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("two", [0, 2, 4])
def test_each_clip_of_a_pair_is_first_for_one_of_two_listeners(pairs: ListeningConfig, two: int) -> None:
    first = Counter(
        (step.number, step.stimuli[0] == pairs.trials[step.number].stimuli[0])
        for listener in (two, two + 1)
        for step in steps_of(pairs, listener)
        if step.kind == "trial"
    )
    assert len(first) == 2 * 9 and set(first.values()) == {1}


def test_pages_have_their_order_and_checks_lie_between_trials(pairs: ListeningConfig) -> None:
    kinds = [step.kind for step in steps_of(pairs, 0)]
    assert kinds[:9] == ["consent", "volume", *["headphones"] * 6, "training"]
    assert kinds[9:] == [*["trial"] * 3, "check", *["trial"] * 3, "check", *["trial"] * 3, "end"]
