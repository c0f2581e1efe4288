"""Specs of patching maps. Imports nothing slow: `workbench patch` takes its options from here."""

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from workbench.engine.settings import MOST_STEPS
from workbench.engine.sites import Target
from workbench.scorers import SCORERS, ScorerNames
from workbench.scorers.descriptors import DESCRIPTORS, DescriptorNames
from workbench.seeds import Seed
from workbench.validation import Names, distinct

LONGEST_NAME = 60
MOST_RUNS = 1_000_000  # limit on each of pairs, seeds and arms: more would never finish

Direction = Literal["sufficiency", "necessity"]
Ablation = Literal["zero", "mean", "resample"]
Null = Literal["unrelated", "random", "control"]
ScreeningMethod = Literal["velocity", "attribution"]


class Question(NamedTuple):
    """A question that a map answers: the name of its columns, and the question in words."""

    columns: str
    title: str


QUESTIONS = {
    "blocks": Question("intervention", "Which blocks?"),
    "steps": Question("steps", "At which steps?"),
    "sigmas": Question("noise level", "At which noise levels?"),
    "parts": Question("part", "Which parts?"),
    "heads": Question("head", "Which heads?"),
    "passes": Question("guidance pass", "In which guidance pass?"),
    "conditioning": Question("conditioning tokens", "Which conditioning tokens?"),
    "seconds": Question("seconds of the music", "At which seconds?"),
    "sets": Question("together with", "Which blocks together?"),
    "paths": Question("receiver", "Along which paths?"),
    "custom": Question("arm", "Own arms"),
}
"""A question's arms are made by `<question>_arms` in `analyses.patching.arms`; those of custom come from the user."""

DEFAULT_QUESTION = "blocks"
DEFAULT_SCORER = "embedded"

if TYPE_CHECKING:
    QuestionName = str
else:
    QuestionName = Literal[tuple(QUESTIONS)]

WINDOWED = ("steps", "sigmas", "seconds")
# Fields that apply only to some questions.
APPLIES_TO: dict[str, tuple[str, ...]] = {
    "sets": ("blocks",),
    "ablations": ("blocks",),
    "windows": WINDOWED,
    "segments": ("conditioning",),
    "receivers": ("paths",),
    "greedy_fraction": ("sets",),
    "nulls": tuple(question for question in QUESTIONS if question not in ("paths", "custom")),
    "custom_arms": ("custom",),
}


class Screening(BaseModel):
    """Settings for screening the arms of a map with a cheap estimate before exact patching.

    For each concept, the `top` arms and a random `sample` of the others are confirmed by exact patching.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    method: ScreeningMethod = "velocity"
    pairs: int = Field(4, ge=1, le=MOST_RUNS, description="Pairs used for screening.")
    top: int = Field(8, ge=1, le=MOST_RUNS, description="Top cells to run after screening.")
    sample: int = Field(
        8, ge=2, le=MOST_RUNS, description="Other cells to run after screening, drawn at random."
    )


class PatchingSpec(BaseModel):
    """A patching map: a question, answered on `pairs` counterfactual pairs of each concept with `seeds` seeds each.

    Empty `concepts`, `blocks` and `segments` mean all. `sets` are sets of blocks patched together, in addition to
    single blocks (question blocks). `windows` is the number of windows of steps, noise levels or seconds. `receivers`
    are the parts at which paths end. `nulls` are null arms of every patch from the clean run. With `stop_top`, pairs
    are added from `min_pairs` on until the intervals of that many top cells lie above those of all other cells, or
    until `pairs` have been run. With `greedy_fraction` (question sets), blocks are added one at a time until that
    fraction of the concept is restored. `descriptors` get a map beside those of the scorers. `custom_arms` (question
    custom) are arms as JSON. `pairs_file` is a CSV file of pairs, used instead of the study's. `pairs_hash` (of that
    file's pairs), `judges` (identities of the scorers) and `schema_version` (of the result) are filled in when the map
    is made (`settled`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    question: QuestionName = Field(
        DEFAULT_QUESTION,
        description="Question that the map answers: which blocks, at which steps, through which heads …",
    )
    name: str = Field(
        "",
        pattern=r"^[\w.+-]*$",
        max_length=LONGEST_NAME,
        description="Name of the map; defaults to the question.",
    )
    concepts: Names = Field((), description="Concept to patch; by default all concepts of the study.")
    pairs: int = Field(12, ge=1, le=MOST_RUNS, description="Counterfactual pairs per concept.")
    seeds: int = Field(
        1, ge=1, le=MOST_RUNS, description="Seeds of initial noise per pair; every pair has its own."
    )
    directions: tuple[Direction, ...] = ("sufficiency", "necessity")
    ablations: tuple[Ablation, ...] = Field((), description="Also ablate every block in this way.")
    nulls: tuple[Null, ...] = Field((), description="Add null arms of this kind.")
    blocks: tuple[int, ...] = Field((), description="Block to patch; all by default.")
    sets: tuple[tuple[int, ...], ...] = Field((), description="Blocks patched together, such as tf3+tf4.")
    mode: Target = Field("conditioning", description="Patch the conditioning (as in the paper) or outputs.")
    part: str = Field("cross_attn", description="Part of the block to patch.")
    windows: int = Field(
        8, ge=1, le=MOST_STEPS, description="Number of windows of steps, noise levels or seconds."
    )
    segments: Names = Field((), description="Conditioning tokens to patch: text, swapped, word:violin …")
    receivers: Names = Field((), description="Part at which paths end, such as mlp.")
    greedy_fraction: float = Field(
        0.0, ge=0, le=1, description="Grow a set of blocks until it restores this fraction; for sets."
    )
    screening: Screening | None = None
    stop_top: int = Field(
        0,
        ge=0,
        le=MOST_RUNS,
        description="Stop early once the intervals of this many top cells lie above all others; 0 disables it.",
    )
    min_pairs: int = Field(10, ge=2, le=MOST_RUNS, description="Minimum pairs before early stopping.")
    scorers: ScorerNames = Field(
        (),
        validate_default=True,
        description=f"Scorer for the clips: {', '.join(SCORERS)}. By default embedded, and musicnn where it hears the "
        "concepts.",
    )
    descriptors: DescriptorNames = Field(
        (),
        description=f"Descriptor of the audio that gets a map, too: {', '.join(DESCRIPTORS)}. By default those of the "
        "study's prompt set.",
    )
    seed: Seed = Field(0, description="Seed of the pairs.")
    custom_arms: str = ""
    pairs_file: str = ""
    pairs_hash: str = ""
    judges: dict[str, str] = {}
    schema_version: int = 0

    _distinct = field_validator("*")(distinct)

    @field_validator("scorers")
    @classmethod
    def _some(cls, scorers: tuple[str, ...]) -> tuple[str, ...]:
        return scorers or (DEFAULT_SCORER,)

    @model_validator(mode="after")
    def _check_applicable(self) -> "PatchingSpec":
        for name, questions in APPLIES_TO.items():
            changed = getattr(self, name) != type(self).model_fields[name].default
            if changed and self.question not in questions:
                raise ValueError(f"{name} applies to {' or '.join(questions)}, not to {self.question}")
        return self

    @model_validator(mode="after")
    def _custom_has_arms(self) -> "PatchingSpec":
        if self.question == "custom" and not self.custom_arms:
            raise ValueError("the question custom needs arms: give a file of them (--arms)")
        return self

    @property
    def result_name(self) -> str:
        """Name of the result: `patching-` and the map's name, which is its question by default."""
        return f"patching-{self.name or self.question}"
