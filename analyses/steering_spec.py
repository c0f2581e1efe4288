"""The spec of steering results. Imports nothing slow: `workbench steer` takes its options from here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from workbench.scorers import SCORERS, ScorerNames
from workbench.scorers.distances import DISTANCES
from workbench.seeds import Seed
from workbench.validation import Names, distinct

METHODS = ("caa", "austeer", "sae-features", "probe")
"""Methods that compute a vector from pairs."""
DESCRIPTOR_METHODS = ("covariance", "ridge", "probe")
"""Methods that compute a vector from the values of a descriptor."""
PROMPT_METHODS = ("pci", "text-embedding", "token-embedding", "free-sliders")
"""Methods that steer through the prompt."""
SCORES = ("tfidf", "diff", "ratio", "cohens_d", "mean_pos", "logistic")
"""Scores of features, by which those of a direction are chosen."""
PASS_MODES = ("cond_only", "null_only", "null_on_cond", "separate", "cond_on_both", "null_on_both")
"""Names of `analyses.steering.vector.PASS_MODES`."""
OPERATIONS = ("add", "clamp", "steer_back")
"""What is done with a vector: `analyses.steering.vector.Operation`."""
CHECK = "check-"
"""What the names of the trials begin with that vectors are judged by."""
DEFAULT_SCORER = "embedded"
LONGEST_NAME = 60
MOST_RUNS = 1_000_000


class SteeringSpec(BaseModel):
    """What steering is tried on: prompts with the concept's negative values, and the texts that clips are scored for.

    `pairs` are drawn from the study's prompt set; their prompts with a negative value, or if `steered` says so with the
    positive one, are steered. None of those is in `without`, the prompts that directions were computed from. Pairs that
    are given instead of drawn are identified by `pairs_hash`. `arms` is a hash of all edits. `judges` and `measures`
    (identities of the scorers and distances) and the result's `schema_version` are filled in when it is made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str = Field(
        "",
        pattern=r"^[\w.+-]*$",
        max_length=LONGEST_NAME,
        description="Name of the result; defaults to the concept.",
    )
    concept: str
    positive: str
    negatives: tuple[str, ...]
    pairs: int = Field(8, ge=1, le=MOST_RUNS, description="Prompts to steer, with their counterparts.")
    seeds: int = Field(1, ge=1, le=MOST_RUNS, description="Seeds of initial noise per prompt.")
    strengths: tuple[float, ...] = Field(
        (1.0, 2.0, 3.0), min_length=1, description="Strength; negative towards the negative values."
    )
    randoms: int = Field(20, ge=0, le=MOST_RUNS, description="Random vectors of the same norm, as a null.")
    scorers: ScorerNames = Field(
        (DEFAULT_SCORER,), min_length=1, description=f"Scorer for the clips: {', '.join(SCORERS)}."
    )
    distances: Names = Field(
        (), description=f"Distance of clips from the unsteered ones: {', '.join(DISTANCES)}."
    )
    seed: Seed = Field(0, description="Seed of the prompts, their noise and the random vectors.")
    steered: Literal["negative", "positive"] = "negative"
    without: tuple[str, ...] = ()
    pairs_hash: str = ""
    arms: str = ""
    judges: dict[str, str] = {}
    measures: dict[str, str] = {}
    schema_version: int = 0

    _distinct = field_validator("strengths", "scorers", "distances")(distinct)

    @property
    def result_name(self) -> str:
        """Name of the result: `steering-` and the given name, which is the concept by default."""
        return f"steering-{self.name or self.concept}"
