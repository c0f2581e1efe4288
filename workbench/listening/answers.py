"""The answers of a listening study as tables: who preferred or rated which condition how, and how each listener did."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cache.errors import UserError
from workbench.listening.config import ListeningConfig, Stimulus
from workbench.listening.folder import read_config
from workbench.listening.forms import form_of, preferred
from workbench.listening.orders import Step
from workbench.listening.store import Answer, AnswerStore, Listener
from workbench.provenance import content_hash

PREFERENCES = ("listener", "item", "first", "second", "preferred")
RATINGS = ("listener", "item", "condition", "role", "question", "rating")
LISTENERS = ("listener", "excluded", "finished", "trials", "headphones", "checks", "fast")


@dataclass(frozen=True)
class Answers:
    """All answers to a listening study.

    `preferences` (of pairs) has a row for each answer: conditions `first` and `second`, and which is preferred: 1 the
    first, 0 the second, .5 neither. `ratings` has a row for each rating of a condition: 1 to 5, or 0 to 100. Both have
    answers to trials only. `listeners` has, of each listener who answered a trial: why the listener was excluded before
    an import, or "", whether all is answered, the number of trials, how many headphone tests and attention checks were
    answered rightly, and the share of trials answered in less time than their clips take to play.
    """

    config: ListeningConfig
    preferences: pd.DataFrame
    ratings: pd.DataFrame
    listeners: pd.DataFrame


def study_id(config: ListeningConfig) -> str:
    """Return what identifies a listening study: a hash of its document."""
    return content_hash(config.model_dump(mode="json"), 32)


def read_answers(folder: Path) -> Answers:
    """Read the answers in the folder of a listening study.

    Raises:
        UserError: if the folder is no listening study, nobody has answered yet, or an answer does not fit its page.
    """
    answers = read_any_answers(folder)
    if answers.listeners.empty:
        raise UserError(f"Nobody has answered {folder} yet. Run `workbench listen serve`.")
    return answers


def read_any_answers(folder: Path) -> Answers:
    """Read the answers in the folder of a listening study, none if nobody has answered yet.

    Raises:
        UserError: if the folder is no listening study, or an answer does not fit its page.
    """
    config = read_config(folder)
    store = AnswerStore(folder, study_id(config))
    by_listener: dict[int, list[Answer]] = {}
    for answer in store.answers():
        by_listener.setdefault(answer.listener, []).append(answer)
    excluded = store.excluded()
    preferences: list[dict[str, Any]] = []
    ratings: list[dict[str, Any]] = []
    listeners: list[dict[str, Any]] = []
    for listener in store.listeners():
        given = [(_step(folder, config, listener, one), one) for one in by_listener.get(listener.number, [])]
        trials = [(step, answer) for step, answer in given if step.kind == "trial"]
        if not trials:
            continue
        reason = excluded.get(listener.number, "")
        listeners.append({"excluded": reason, **_behaviour(config, listener, given)})
        for step, answer in trials:
            if config.design == "pairs":
                preferences.append(_preference(config, listener, step, answer))
            else:
                ratings += _ratings(config, listener, step, answer)
    return Answers(
        config,
        pd.DataFrame(preferences, columns=list(PREFERENCES)),
        pd.DataFrame(ratings, columns=list(RATINGS)),
        pd.DataFrame(listeners, columns=list(LISTENERS)),
    )


def _step(folder: Path, config: ListeningConfig, listener: Listener, answer: Answer) -> Step:
    """Return the page that was answered; raise UserError unless the answer is one that it allows."""
    if 0 <= answer.step < len(listener.steps):
        step = listener.steps[answer.step]
        if _exists(config, step):
            fields = form_of(config, step).fields
            if len(fields) == len(answer.answers) and all(
                field.allows(number) for field, number in zip(fields, answer.answers, strict=True)
            ):
                return step
    raise UserError(f"The answers of {folder} do not fit its study.json. Restore both from one copy.")


def _exists(config: ListeningConfig, step: Step) -> bool:
    """Whether a study has such a page."""
    if step.kind in ("consent", "volume"):
        return True
    if step.kind == "headphones":
        return 0 <= step.number < len(config.headphones)
    if not 0 <= step.number < len(config.trials):
        return False
    trial = config.trials[step.number]
    return trial.kind == step.kind and sorted(trial.stimuli) == sorted(step.stimuli)


def _preference(config: ListeningConfig, listener: Listener, step: Step, answer: Answer) -> dict[str, Any]:
    known, trial = config.by_token, config.trials[step.number]
    first, second = trial.stimuli
    chosen = preferred(config, step, answer.answers[0])
    return {
        "listener": listener.number,
        "item": trial.item,
        "first": known[first].condition,
        "second": known[second].condition,
        "preferred": {first: 1.0, second: 0.0, "": 0.5}[chosen],
    }


def _ratings(config: ListeningConfig, listener: Listener, step: Step, answer: Answer) -> list[dict[str, Any]]:
    known, trial = config.by_token, config.trials[step.number]

    def row(stimulus: Stimulus, question: str, rating: int) -> dict[str, Any]:
        values = (listener.number, trial.item, stimulus.condition, stimulus.role, question, float(rating))
        return dict(zip(RATINGS, values, strict=True))

    if config.design == "mushra":
        rated = zip(step.stimuli, answer.answers, strict=True)
        return [row(known[token], config.shown_questions[0], rating) for token, rating in rated]
    stimulus = known[step.stimuli[0]]
    # Options are numbered from 0 on, points from 1 on.
    rated_questions = zip(config.shown_questions, answer.answers, strict=True)
    return [row(stimulus, question, rating + 1) for question, rating in rated_questions]


def _behaviour(
    config: ListeningConfig, listener: Listener, given: list[tuple[Step, Answer]]
) -> dict[str, Any]:
    """Return how a listener did."""
    known = config.by_token
    tests = [(step, answer) for step, answer in given if step.kind == "headphones"]
    checks = [(step, answer) for step, answer in given if step.kind == "check"]
    trials = [(step, answer) for step, answer in given if step.kind == "trial"]
    fast = [answer.seconds < sum(known[token].seconds for token in step.stimuli) for step, answer in trials]
    return {
        "listener": listener.number,
        "finished": listener.finished,
        "trials": len(trials),
        "headphones": sum(
            answer.answers[0] == config.headphones[step.number].expected for step, answer in tests
        ),
        "checks": sum(_is_right(config, step, answer) for step, answer in checks),
        "fast": sum(fast) / len(fast),
    }


def _is_right(config: ListeningConfig, step: Step, answer: Answer) -> bool:
    trial = config.trials[step.number]
    if config.design == "pairs":
        return preferred(config, step, answer.answers[0]) == trial.stimuli[trial.expected or 0]
    return answer.answers[0] + 1 == trial.expected
