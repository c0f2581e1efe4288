"""What judges hear in the clips of the lab: scores of the unedited and the edited clip, and their distance."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from cache.errors import UserError
from workbench.prompts.prompt_sets import PromptSet
from workbench.scorers import SCORERS, Scorer, heard
from workbench.scorers.descriptor_scorer import MEASURE, high
from workbench.scorers.descriptors import DESCRIPTORS
from workbench.studies.study import Study

ALWAYS = ("embedded", "musicnn", MEASURE)
"""Judges that hear every clip: they need no files but the workbench's own."""
DISTANCE = "log-mel"
"""The distance from the unedited clip."""


@dataclass(frozen=True)
class Reading:
    """What a judge is asked about a clip: a concept, one of its values or the unit, and the judge's text for it."""

    judge: str
    concept: str
    value: str
    text: str


@dataclass(frozen=True)
class Score:
    """A reading of both clips; None where the judge could not hear one."""

    reading: Reading
    unedited: float | None
    edited: float | None

    @property
    def change(self) -> float | None:
        """The change that the edits make."""
        if self.unedited is None or self.edited is None:
            return None
        return self.edited - self.unedited


@dataclass(frozen=True)
class Scores:
    """The scores of a rendered request, the distance of its two clips, and sentences on judges that are missing."""

    scores: tuple[Score, ...]
    distance: float | None
    notes: tuple[str, ...] = ()


def judges_of(study: Study) -> list[str]:
    """Return the names of the judges of a study's clips: those that always work, and those that its results name."""
    named = set(ALWAYS)
    for name in study.result_names():
        # A damaged result, or one that may not be read, names none.
        with suppress(UserError, OSError, ValueError, AttributeError, TypeError):
            named |= set(json.loads(study.result_attributes(name)["spec"]).get("scorers", ()))
    return [name for name in SCORERS if name in named]


def readings(prompts: PromptSet, judges: Mapping[str, Scorer]) -> Iterator[Reading]:
    """Yield what each judge is asked: the values of the prompt set's concepts that it can hear, or all descriptors."""
    for name, judge in judges.items():
        if name == MEASURE:
            for descriptor, known in DESCRIPTORS.items():
                yield Reading(name, descriptor, known.unit, high(descriptor))
            continue
        texts = [value.text for values in prompts.concepts.values() for value in values.values()]
        known_texts = set(heard(judge, texts))
        for concept, values in prompts.concepts.items():
            for label, value in values.items():
                if value.text in known_texts:
                    yield Reading(name, concept, label, value.text)
