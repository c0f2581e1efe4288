"""A user's request for a listening study. Imports nothing slow: its fields are the options of the command."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from workbench.seeds import Seed
from workbench.validation import Names, distinct, line_problem

Design = Literal["pairs", "ratings", "mushra"]
Reference = Literal["unsteered", "real prompt"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)

MOST_ITEMS = 200
MOST_CONDITIONS = 12
"""Of one item: as many stimuli as a MUSHRA trial may have (ITU-R BS.1534-3)."""
LONGEST_TEXT = 4000

TEXT = "{text}"
"""In a question, stands for the item's text, such as the value that is steered towards."""
QUESTIONS: dict[Design, tuple[str, ...]] = {
    "pairs": (f"Which clip matches “{TEXT}” better?",),
    "ratings": (
        f"How well does the clip match “{TEXT}”?",
        "How much is the clip a seamless edit of the original, with everything else kept?",
    ),
    "mushra": ("How good is each clip, compared with the reference?",),
}
CONSENT = (
    "You will hear short clips of music and answer questions about them. Please sit in a quiet place and use "
    "headphones. Taking part is voluntary: you may stop at any time by closing this page.\n"
    "What is stored: your answers, and how many seconds each took. Your name, your network address and your browser "
    "are not stored. The answers are analysed together with those of other listeners, and may be published."
)


class ListeningRequest(BaseModel):
    """A request for a listening study of the clips of a steering result or of a table of files."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    design: Design = Field(
        "pairs",
        description="pairs: which of two clips; ratings: questions about each clip, from 1 to 5; mushra: all clips of "
        "an item from 0 to 100, with a hidden reference and a low anchor (ITU-R BS.1534-3).",
    )
    questions: Names = Field(
        (),
        description="Question to the listeners, of ratings one or several; {text} stands for the item's text. By "
        "default those of the design.",
    )
    items: int = Field(8, ge=1, le=MOST_ITEMS, description="Prompts whose clips are compared.")
    ways: Names = Field((), description="Way of steering whose clips are compared; by default all.")
    strengths: tuple[float, ...] = Field(
        (), description="Strength at which they are compared; by default all."
    )
    reference: Reference = Field(
        "unsteered", description="For ratings and mushra: the clip that listeners compare with."
    )
    forced: bool = Field(False, description='For pairs: leave out the answer "no difference".')
    checks: int = Field(2, ge=0, le=20, description="For pairs and ratings: attention checks.")
    any_device: bool = Field(
        False,
        description="Leave out the test for headphones (Milne et al. 2021), for listeners with loudspeakers.",
    )
    loudness: float = Field(
        -23.0,
        ge=-60,
        le=-10,
        description="Loudness of every clip in LUFS (ITU-R BS.1770); less if one would clip otherwise.",
    )
    title: str = Field("Listening study", min_length=1, max_length=200, description="Title of the page.")
    seed: Seed = Field(0, description="Seed of the orders, checks and file names.")
    consent: str = Field(CONSENT, max_length=LONGEST_TEXT)

    _distinct = field_validator("questions", "ways", "strengths")(distinct)

    @field_validator("title", "questions")
    @classmethod
    def _one_line(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for text in (value,) if isinstance(value, str) else value:
            if problem := line_problem(text) or ("must not be empty" if not text.strip() else ""):
                raise ValueError(problem)
            if len(text) > LONGEST_TEXT:
                raise ValueError(f"must have at most {LONGEST_TEXT} characters")
        return value

    @property
    def asked(self) -> tuple[str, ...]:
        """The questions, by default those of the design."""
        return self.questions or QUESTIONS[self.design]
