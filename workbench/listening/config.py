"""The document of a listening study: its stimuli, trials and questions, and which file is which condition."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workbench.listening.request import LONGEST_TEXT, TEXT, Design

TOKEN_DIGITS = 20
MOST_STIMULI = 5000
MOST_TRIALS = 2000

Token = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{TOKEN_DIGITS}}}$")]
"""Blind name of a stimulus, which says nothing about its condition."""
Role = Literal["condition", "reference", "hidden reference", "anchor", "check", "headphones"]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Name = Annotated[str, Field(max_length=300)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Stimulus(_Model):
    """An audio file: of which item and condition it is, its length, and the gain that was applied to it in dB."""

    token: Token
    item: Name
    condition: Name
    role: Role
    seconds: float = Field(ge=0)
    gain: float = 0.0
    sha256: str = Field(max_length=64)


class Trial(_Model):
    """One page with stimuli: a pair, a clip to rate, or all clips of an item.

    `unit` numbers what is asked about an item (the pairs, or the conditions). `reference` is the token of the clip that
    is openly the reference, or "". `expected` is the right answer of an attention check: the place of a clip in
    `stimuli`, or a rating.
    """

    kind: Literal["trial", "training", "check"]
    item: Name
    unit: int = Field(ge=0)
    stimuli: tuple[Token, ...] = Field(min_length=1, max_length=20)
    reference: Token | Literal[""] = ""
    text: Text = ""
    expected: int | None = None


class HeadphoneTest(_Model):
    """One screening trial for headphones: three noises, one of which hides a tone, and which it is (0 to 2)."""

    stimulus: Token
    expected: int = Field(ge=0, le=2)


class ListeningConfig(_Model):
    """Everything about a listening study except its audio and its answers; `study.json` in its folder."""

    listening_version: Literal[1]
    title: Text
    design: Design
    questions: tuple[Text, ...] = Field(min_length=1, max_length=20)
    ties: bool
    consent: Text
    seed: int
    loudness: float
    conditions: tuple[Name, ...] = Field(min_length=1, max_length=200)
    items: tuple[Name, ...] = Field(min_length=1, max_length=500)
    stimuli: tuple[Stimulus, ...] = Field(max_length=MOST_STIMULI)
    trials: tuple[Trial, ...] = Field(max_length=MOST_TRIALS)
    headphones: tuple[HeadphoneTest, ...] = Field(max_length=20)
    source: dict[str, Any] = {}

    @model_validator(mode="after")
    def _belongs_together(self) -> "ListeningConfig":
        known = {stimulus.token: stimulus for stimulus in self.stimuli}
        if len(known) < len(self.stimuli):
            raise ValueError("two stimuli have the same name")
        used = {token for trial in self.trials for token in (*trial.stimuli, trial.reference) if token}
        if used | {test.stimulus for test in self.headphones} != set(known):
            raise ValueError("its trials and stimuli do not belong together")
        for trial in self.trials:
            named = {known[token].condition for token in trial.stimuli if known[token].role == "condition"}
            if (trial.item not in self.items and trial.kind == "trial") or not named <= set(self.conditions):
                raise ValueError("a trial has an unknown item or condition")
            if self.design == "pairs" and len(set(trial.stimuli)) != 2:
                raise ValueError("a pair must have two clips")
            if self.design == "ratings" and len(trial.stimuli) != 1:
                raise ValueError("a rated trial must have one clip")
        return self

    @property
    def shown_questions(self) -> tuple[str, ...]:
        """The questions as listeners saw them; with `TEXT` where the text differs between items."""
        texts = {trial.text for trial in self.trials if trial.kind == "trial"}
        text = texts.pop() if len(texts) == 1 else TEXT
        return tuple(question.replace(TEXT, text) for question in self.questions)

    @property
    def by_token(self) -> dict[str, Stimulus]:
        """The stimuli by their blind names."""
        return {stimulus.token: stimulus for stimulus in self.stimuli}
