"""Make the folder of a listening study: whole, or not at all; with the same files from the same seed."""

import hashlib
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from cache.opening import create_folder
from workbench.audio import wav_bytes
from workbench.listening.config import TOKEN_DIGITS, HeadphoneTest, ListeningConfig, Role, Stimulus, Trial
from workbench.listening.folder import AUDIO, write_config
from workbench.listening.loudness import common_loudness, in_stereo, loudness, true_peak
from workbench.listening.material import Item, Material, Recording, check_conditions
from workbench.listening.request import MOST_CONDITIONS, TEXT, ListeningRequest
from workbench.listening.signals import TEST_RATE, huggins_pitch, low_anchor, with_tones

Audio = Float[np.ndarray, "channel sample"]
HEADPHONE_TESTS = 6
MOST_TONES = 5
MOST_OF_MUSHRA = MOST_CONDITIONS - 2
"""Beside the hidden reference and the anchor."""
TOLERANCE_LU = 0.05
ANCHOR, HIDDEN = "anchor 3.5 kHz", "hidden reference"


@dataclass
class _Making:
    """A listening study in the making: stimuli and trials so far, in a folder that is not in its place yet."""

    folder: Path
    asked: ListeningRequest
    target: float
    draw: random.Random
    stimuli: dict[str, Stimulus] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    def add(
        self, audio: Audio, rate: int, item: str, condition: str, role: Role, gain: float | None = None
    ) -> str:
        """Write a stimulus, of the common loudness unless its gain in dB is given, and return its blind name."""
        audio = in_stereo(audio)
        if gain is None:
            gain = self.target - loudness(audio, rate, f"The clip '{condition}' of '{item}'")
        content = wav_bytes(audio * 10 ** (gain / 20), rate)
        sha256 = hashlib.sha256(content).hexdigest()
        secret = f"{self.asked.seed}\n{item}\n{condition}\n{role}\n{sha256}"
        token = hashlib.sha256(secret.encode()).hexdigest()[:TOKEN_DIGITS]
        if token not in self.stimuli:
            (self.folder / AUDIO / f"{token}.wav").write_bytes(content)
            self.stimuli[token] = Stimulus(
                token=token,
                item=item,
                condition=condition,
                role=role,
                seconds=audio.shape[1] / rate,
                gain=round(gain, 3),
                sha256=sha256,
            )
        return token

    def remove_unused(self, others: set[str]) -> None:
        """Remove stimuli that are in no trial, as most of the training's item, nor among the `others`."""
        used = others | {token for trial in self.trials for token in (*trial.stimuli, trial.reference)}
        for token in self.stimuli.keys() - used:
            (self.folder / AUDIO / f"{token}.wav").unlink()
            del self.stimuli[token]


def make_listening_study(
    out: Path, material: Material, asked: ListeningRequest, note: Callable[[str], None]
) -> ListeningConfig:
    """Write a listening study to a new folder, and return its document.

    Args:
        out: the folder, which must not exist yet.
        material: the clips.
        asked: the design.
        note: called with a sentence if the clips cannot be as loud as asked for.

    Raises:
        UserError: if the folder exists, or the clips do not fit the design.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists already. Give a new folder (--out).")
    check_conditions(material.conditions, MOST_OF_MUSHRA if asked.design == "mushra" else MOST_CONDITIONS)
    _check_design(material, asked)
    for name in _hidden_conditions(material, asked):
        note(f"The condition '{name}' is the reference itself: listeners rate it as the {HIDDEN}.")
    target = common_loudness(asked.loudness, list(_measured(material, asked)))
    if target < asked.loudness - TOLERANCE_LU:
        note(f"The clips have {target:.1f} LUFS instead of {asked.loudness:g}, so that none clips.")
    create_folder(out.parent)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name[:60]}.part-", dir=out.parent))
    try:
        (folder / AUDIO).mkdir()
        config = _filled(_Making(folder, asked, target, random.Random(asked.seed)), material)
        write_config(folder, config)
        folder.chmod(0o755)
        os.rename(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return config


def _filled(making: _Making, material: Material) -> ListeningConfig:
    """Write all stimuli, and return the document."""
    asked = making.asked
    hidden = _hidden_conditions(material, asked)
    named = {item.name: _written(making, item) for item in material.all_items}
    training = material.training
    of_training = list(_trials(asked, training, *named[training.name], kind="training"))
    making.trials.append(making.draw.choice(of_training))
    for item in material.items:
        making.trials += _trials(asked, item, *named[item.name], kind="trial")
    if asked.design != "mushra":
        making.trials += [_check(making, material, number) for number in range(asked.checks)]
    tests = [_headphone_test(making, number) for number in range(0 if asked.any_device else HEADPHONE_TESTS)]
    making.remove_unused({test.stimulus for test in tests})
    return ListeningConfig(
        listening_version=1,
        title=asked.title,
        design=asked.design,
        questions=asked.asked,
        ties=not asked.forced,
        consent=asked.consent,
        seed=asked.seed,
        loudness=round(making.target, 3),
        conditions=tuple(name for name in material.conditions if name not in hidden),
        items=tuple(item.name for item in material.items),
        stimuli=tuple(making.stimuli[token] for token in sorted(making.stimuli)),
        trials=tuple(making.trials),
        headphones=tuple(tests),
        source=dict(material.source),
    )


def _written(making: _Making, item: Item) -> tuple[dict[str, str], str]:
    """Write an item's clips; return their blind names by condition, and that of the open reference or ""."""
    tokens = {}
    for condition, recording in item.clips.items():
        if making.asked.design == "mushra" and _is_reference(item, recording):
            continue  # it is the hidden reference
        tokens[condition] = making.add(*recording.read(), item.name, condition, "condition")
    if making.asked.design == "pairs" or item.reference is None:
        return tokens, ""
    audio, rate = item.reference.read()
    if making.asked.design == "mushra":
        tokens[HIDDEN] = making.add(audio, rate, item.name, HIDDEN, "hidden reference")
        tokens[ANCHOR] = making.add(low_anchor(audio, rate), rate, item.name, ANCHOR, "anchor")
    return tokens, making.add(audio, rate, item.name, "reference", "reference")


def _is_reference(item: Item, recording: Recording) -> bool:
    return item.reference is not None and item.reference.path == recording.path


def _hidden_conditions(material: Material, asked: ListeningRequest) -> list[str]:
    """Return the conditions of MUSHRA that are the reference of every item: they are heard as the hidden reference."""
    if asked.design != "mushra":
        return []
    heard = {
        name
        for item in material.all_items
        for name, recording in item.clips.items()
        if not _is_reference(item, recording)
    }
    return [name for name in material.conditions if name not in heard]


def _trials(
    asked: ListeningRequest, item: Item, tokens: dict[str, str], reference: str, kind: str
) -> Iterator[Trial]:
    """Yield an item's trials: its pairs of clips, its clips one by one, or all at once."""
    pairs = item.pairs or itertools.combinations(tokens, 2)
    groups: dict[str, Any] = {
        "pairs": ((tokens[first], tokens[second]) for first, second in pairs),
        "ratings": ((token,) for token in tokens.values()),
        "mushra": (tuple(tokens.values()),),
    }
    for unit, group in enumerate(groups[asked.design]):
        yield Trial(
            kind=kind, item=item.name, unit=unit, stimuli=tuple(group), reference=reference, text=item.text
        )


def _check(making: _Making, material: Material, number: int) -> Trial:
    """Write an attention check: which of two clips has short tones, or how many tones a clip has."""
    item = material.items[number % len(material.items)]
    condition = material.conditions[number % len(material.conditions)]
    audio, rate = item.clips[condition].read()
    tones = making.draw.randint(1, MOST_TONES)
    counts = (0, tones) if making.asked.design == "pairs" else (tones,)
    tokens = tuple(
        making.add(
            with_tones(in_stereo(audio), rate, count), rate, item.name, f"check {number}", "check", 0.0
        )
        for count in counts
    )
    expected = 1 if making.asked.design == "pairs" else tones
    return Trial(kind="check", item=item.name, unit=0, stimuli=tokens, expected=expected)


def _headphone_test(making: _Making, number: int) -> HeadphoneTest:
    place = making.draw.randrange(3)
    audio = huggins_pitch(place, making.draw.randrange(2**32))
    token = making.add(audio, TEST_RATE, "", f"headphones {number}", "headphones", 0.0)
    return HeadphoneTest(stimulus=token, expected=place)


def _measured(material: Material, asked: ListeningRequest) -> Iterator[tuple[float, float]]:
    """Yield the loudness and the true peak of every clip."""
    for item in material.all_items:
        references = [] if item.reference is None else [item.reference]
        for recording in dict.fromkeys((*item.clips.values(), *references)):
            audio, rate = recording.read()
            audio = in_stereo(audio)
            yield loudness(audio, rate, str(recording.path)), true_peak(audio)
            if asked.design == "mushra" and _is_reference(item, recording):
                low = low_anchor(audio, rate)
                yield loudness(low, rate, f"The anchor of {recording.path}"), true_peak(low)


def _check_design(material: Material, asked: ListeningRequest) -> None:
    """Raise UserError if the questions or the items do not fit the design."""
    if asked.design != "ratings" and len(asked.asked) > 1:
        raise UserError(f"The design {asked.design} has one question, not {len(asked.asked)} (--question).")
    if asked.design == "mushra":
        _check_mushra(material, asked)
    for item in material.all_items:
        if asked.design == "mushra" and item.reference is None:
            raise UserError(f"MUSHRA needs a reference: '{item.name}' has none (column reference).")
        if not item.text and any(TEXT in question for question in asked.asked):
            raise UserError(
                f"The question names {TEXT}, but '{item.name}' has no text: add a column text to the table, or give a "
                "--question without it."
            )


def _check_mushra(material: Material, asked: ListeningRequest) -> None:
    """Raise UserError if a condition is named as one that MUSHRA adds, or there is none beside the reference."""
    for name in material.conditions:
        if name.casefold() in (HIDDEN, ANCHOR.casefold()):
            raise UserError(
                f"MUSHRA adds the '{HIDDEN}' and the '{ANCHOR}': give the condition '{name}' another name."
            )
    if len(_hidden_conditions(material, asked)) == len(material.conditions):
        raise UserError("Every clip is the reference itself. Give at least one condition with other clips.")
