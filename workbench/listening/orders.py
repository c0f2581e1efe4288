"""In which order a listener hears trials, and the clips of a trial: balanced over listeners by Williams designs."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, TypeAdapter

from workbench.listening.config import ListeningConfig, Trial


class Step(BaseModel):
    """One page of a listener: its kind, the number of its trial or headphone test, and its stimuli in their order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    number: int = 0
    stimuli: tuple[str, ...] = ()


STEPS = TypeAdapter(tuple[Step, ...])


def williams(n: int) -> list[list[int]]:
    """Return a Williams design of `n` treatments: orders in which each is at every place equally often.

    It is also balanced for carry-over: each treatment follows each other one equally often (Williams, Australian
    Journal of Scientific Research A 2, 1949). `n` orders if `n` is even, otherwise 2n.
    """
    first = [place // 2 if place % 2 == 0 else n - 1 - place // 2 for place in range(n)]
    square = [[(treatment + row) % n for treatment in first] for row in range(n)]
    return square if n % 2 == 0 or n == 1 else [*square, *(row[::-1] for row in square)]


def steps_of(config: ListeningConfig, listener: int) -> tuple[Step, ...]:
    """Return the pages of a listener, numbered from 0 on: consent, headphone tests, training, trials and checks."""
    numbered = list(enumerate(config.trials))
    training = [_step(number, trial, listener) for number, trial in numbered if trial.kind == "training"]
    checks = [_step(number, trial, listener) for number, trial in numbered if trial.kind == "check"]
    trials = [_step(number, config.trials[number], listener) for number in trial_order(config, listener)]
    tests = [Step(kind="headphones", number=place) for place in range(len(config.headphones))]
    volume = [Step(kind="volume")] if tests else []
    return (Step(kind="consent"), *volume, *tests, *training, *_spread(trials, checks), Step(kind="end"))


def trial_order(config: ListeningConfig, listener: int) -> list[int]:
    """Return the numbers of the trials in the order of a listener.

    In every round each unit (a pair, or a condition) is heard once, in the order of a Williams design, each with
    another item; after as many rounds as there are items, every unit was heard with every item.
    """
    places = {
        (trial.item, trial.unit): number
        for number, trial in enumerate(config.trials)
        if trial.kind == "trial"
    }
    items = [config.items[place] for place in _row(len(config.items), listener)]
    units = _row(1 + max(unit for _, unit in places), listener)
    cells = [(items[(turn + unit) % len(items)], unit) for turn in range(len(items)) for unit in units]
    return [places[cell] for cell in cells if cell in places]


def _row(n: int, listener: int) -> list[int]:
    design = williams(n)
    return design[listener % len(design)]


def _step(number: int, trial: Trial, listener: int) -> Step:
    """Return a trial's page, with its clips in the order of a Williams design, shifted from trial to trial."""
    n = len(trial.stimuli)
    # In the second cycle of an even number of orders the first clip of a pair changes places with the second, so that
    # the order of the clips does not go with the order of the trials.
    order = _row(n, listener + listener // len(williams(n)) + number)
    return Step(kind=trial.kind, number=number, stimuli=tuple(trial.stimuli[place] for place in order))


def _spread(trials: list[Step], checks: list[Step]) -> Iterable[Step]:
    """Yield the trials with the checks between them, at equal distances."""
    left = list(checks)
    for done, trial in enumerate(trials):
        while left and (len(checks) - len(left) + 1) * len(trials) // (len(checks) + 1) <= done:
            yield left.pop(0)
        yield trial
    yield from left
