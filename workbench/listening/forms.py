"""What a listener sees and answers on a page: plain data that names no condition."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from workbench.listening.config import ListeningConfig, Trial
from workbench.listening.orders import Step
from workbench.listening.request import TEXT

BEST = 100
"""Highest rating of MUSHRA."""
POINTS = 5
SCALE = ("1", "2", "3", "4", "5")
SCALE_WORDS = ("not at all", "very much")
NO_DIFFERENCE = "No difference"
MUSHRA_WORDS = ("Bad", "Poor", "Fair", "Good", "Excellent")
"""What the fifths of the scale from 0 to 100 mean (ITU-R BS.1534-3)."""
_CHECK_PAIR = "To check that you are listening: which clip has short, high tones in it?"
_CHECK_COUNT = "To check that you are listening: how many short, high tones does this clip have?"
_TRAINING = "This is for practice; the answer does not count."


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class Clip(_Shown):
    """A clip that can be played: a label and its blind name."""

    label: str
    token: str


class Field(_Shown):
    """A question, with options of which one is chosen, or a slider from 0 to 100; words along it, from low to high."""

    question: str
    kind: Literal["options", "slider"]
    options: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def allows(self, answer: int) -> bool:
        """Whether an answer is one of the options' places, or on the slider."""
        return 0 <= answer <= (BEST if self.kind == "slider" else len(self.options) - 1)


class Form(_Shown):
    """A page: heading, paragraphs, clips that must be heard, questions, and the words on the button."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    clips: tuple[Clip, ...] = ()
    fields: tuple[Field, ...] = ()
    button: str = "Next"


def form_of(config: ListeningConfig, step: Step) -> Form:
    """Return the page of a step."""
    if step.kind == "consent":
        paragraphs = tuple(config.consent.split("\n"))
        return Form(heading=config.title, paragraphs=paragraphs, button="I agree: start")
    if step.kind == "volume":
        clip = Clip(label="Noise", token=config.headphones[0].stimulus)
        text = (
            "Put on your headphones, play the noise, and set the volume so that it is clear but comfortable."
        )
        return Form(heading="Set the volume", paragraphs=(text,), clips=(clip,))
    if step.kind == "headphones":
        return _headphones(config, step)
    if step.kind == "end":
        return Form(
            heading="Thank you",
            paragraphs=("All your answers are stored. You can close this page.",),
            button="",
        )
    trial = config.trials[step.number]
    paragraphs = (_TRAINING,) if step.kind == "training" else ()
    if config.design == "mushra":
        paragraphs = (*paragraphs, config.questions[0].replace(TEXT, trial.text))
    heading = "Practice" if step.kind == "training" else "Listen and answer"
    reference = (Clip(label=_reference_label(config), token=trial.reference),) if trial.reference else ()
    clips = (*reference, *_clips(step.stimuli))
    return Form(heading=heading, paragraphs=paragraphs, clips=clips, fields=_fields(config, trial, step))


def preferred(config: ListeningConfig, step: Step, answer: int) -> str:
    """Return the blind name of the clip that an answer to a pair prefers, or "" for no difference."""
    if config.ties and step.kind != "check":
        return (step.stimuli[0], "", step.stimuli[1])[answer]
    return step.stimuli[answer]


def _headphones(config: ListeningConfig, step: Step) -> Form:
    test = config.headphones[step.number]
    field = Field(
        question="In which noise is the tone?", kind="options", options=("First", "Second", "Third")
    )
    text = "You hear three noises, one after another. One of them has a faint tone in it."
    heading = f"Headphones, {step.number + 1} of {len(config.headphones)}"
    return Form(
        heading=heading,
        paragraphs=(text,),
        clips=(Clip(label="Three noises", token=test.stimulus),),
        fields=(field,),
    )


def _reference_label(config: ListeningConfig) -> str:
    return "Reference" if config.design == "mushra" else "Original"


def _clips(tokens: Sequence[str]) -> tuple[Clip, ...]:
    if len(tokens) == 1:
        return (Clip(label="Clip", token=tokens[0]),)
    return tuple(Clip(label=chr(ord("A") + place), token=token) for place, token in enumerate(tokens))


def _fields(config: ListeningConfig, trial: Trial, step: Step) -> tuple[Field, ...]:
    questions = [question.replace(TEXT, trial.text) for question in config.questions]
    if config.design == "pairs":
        if trial.kind == "check":
            return (Field(question=_CHECK_PAIR, kind="options", options=("A", "B")),)
        options = ("A", NO_DIFFERENCE, "B") if config.ties else ("A", "B")
        return (Field(question=questions[0], kind="options", options=options),)
    if config.design == "ratings":
        if trial.kind == "check":
            return (Field(question=_CHECK_COUNT, kind="options", options=SCALE),)
        return tuple(
            Field(question=question, kind="options", options=SCALE, words=SCALE_WORDS)
            for question in questions
        )
    clips = _clips(step.stimuli)
    return tuple(Field(question=f"Clip {clip.label}", kind="slider", words=MUSHRA_WORDS) for clip in clips)
