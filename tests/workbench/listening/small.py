"""A listening study of half-second tones with more or less noise, and listeners whose preferences are known."""

import json
import math
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile

from workbench.listening.answers import study_id
from workbench.listening.config import ListeningConfig
from workbench.listening.folder import read_config
from workbench.listening.forms import form_of
from workbench.listening.making import make_listening_study
from workbench.listening.material import from_table
from workbench.listening.orders import Step, steps_of
from workbench.listening.request import ListeningRequest
from workbench.listening.store import AnswerStore

RATE = 22_050
SECONDS = 0.5
NOISES = {"much noise": 0.3, "some noise": 0.1, "little noise": 0.03}
TRUE = {"much noise": -1.0, "some noise": 0.0, "little noise": 1.0}
"""Logarithms of the conditions' Bradley–Terry strengths."""
TIE = 0.4
"""Davidson's ν of the simulated listeners."""
TEXT = "a clean tone"


def write_table(folder: Path, items: int = 4) -> Path:
    """Write clips, of increasing loudness, and the table that names them; return the table."""
    rng = np.random.default_rng(0)
    rows = ["stimulus,condition,reference,item,text"]
    times = np.arange(round(SECONDS * RATE)) / RATE
    for item in range(items):
        tone = 0.05 * (1 + item) * np.sin(2 * np.pi * 220 * (2 + item) * times)
        soundfile.write(folder / f"tone{item}.wav", tone, RATE)
        for name, size in NOISES.items():
            file = f"{name.split()[0]}{item}.wav"
            soundfile.write(folder / file, tone + 0.1 * size * rng.standard_normal(len(times)), RATE)
            rows.append(f"{file},{name},tone{item}.wav,tune {item},{TEXT}")
    table = folder / "clips.csv"
    table.write_text("\n".join([*rows, ""]))
    return table


def make_small(table: Path, out: Path, **asked: object) -> ListeningConfig:
    """Make a listening study of the table's clips."""
    request = ListeningRequest(**asked)
    return make_listening_study(out, from_table(table, request), request, lambda sentence: None)


def right(config: ListeningConfig, step: Step) -> int:
    """The right answer to a check."""
    trial = config.trials[step.number]
    assert trial.expected is not None
    return (
        step.stimuli.index(trial.stimuli[trial.expected]) if config.design == "pairs" else trial.expected - 1
    )


def answers_of(config: ListeningConfig, step: Step, rng: random.Random) -> list[int]:
    """What a simulated listener answers: checks and headphone tests rightly, others by the true preferences."""
    known = config.by_token
    if step.kind == "headphones":
        return [config.headphones[step.number].expected]
    if step.kind == "check":
        return [right(config, step)]
    if step.kind not in ("trial", "training"):
        return []
    if config.design == "pairs":
        a, b = (TRUE[known[token].condition] for token in step.stimuli)
        return rng.choices([0, 1, 2], [math.exp(a), TIE * math.exp((a + b) / 2), math.exp(b)])
    if config.design == "ratings":
        true = TRUE[known[step.stimuli[0]].condition]
        return [min(4, max(0, round(2 + true + rng.gauss(0, 0.5)))) for _ in form_of(config, step).fields]
    fixed = {"hidden reference": 100, "anchor": 20}
    return [
        fixed.get(known[token].role) or round(60 + 15 * TRUE[known[token].condition] + rng.gauss(0, 5))
        for token in step.stimuli
    ]


def simulate(folder: Path, listeners: int) -> AnswerStore:
    """Let listeners answer a whole study, each page in ten seconds."""
    config = read_config(folder)
    store = AnswerStore(folder, study_id(config))
    rng = random.Random(1)
    rows = []
    for _ in range(listeners):
        listener = store.add_listener(lambda number: steps_of(config, number))
        assert listener is not None
        for place, step in enumerate(listener.steps[:-1]):
            rows.append((listener.number, place, json.dumps(answers_of(config, step, rng)), 10.0))
    with closing(sqlite3.connect(store.file)) as database, database:  # all at once, which is quick
        database.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", rows)
    return store
