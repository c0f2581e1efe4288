"""The specs of evaluations of SAEs. Imports nothing slow: `workbench sae` takes its options from here."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from workbench.files import file_name
from workbench.scorers import SCORERS, ScorerNames
from workbench.seeds import Seed
from workbench.validation import Names, distinct

MOST_RUNS = 1_000_000


class _Spec(BaseModel):
    """What both have: prompts, and judges.

    `weights` (hash of the SAE's weights, or of several by name), `judges` (identities of the scorers) and
    `schema_version` (of the result) are filled in when the result is made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    seeds: int = Field(1, ge=1, le=MOST_RUNS, description="Seeds of initial noise per pair.")
    scorers: ScorerNames = Field(
        ("embedded",), min_length=1, description=f"Scorer for the clips: {', '.join(SCORERS)}."
    )
    seed: Seed = Field(0, description="Seed of the pairs and their noise.")
    judges: dict[str, str] = {}
    schema_version: int = 0


class EvaluationSpec(_Spec):
    """What an SAE is evaluated on: held-out clips for the loss recovered, pairs of each concept for the scores kept."""

    name: str
    weights: str = ""
    clips: int = Field(
        16, ge=1, le=MOST_RUNS, description="Held-out clips on which the loss recovered is measured."
    )
    pairs: int = Field(
        8, ge=0, le=MOST_RUNS, description="Pairs of each concept for the scores kept; 0 leaves these out."
    )
    against: Names = Field(
        (),
        description="Another autoencoder of the study, such as one of another seed, to match features with.",
    )

    _distinct = field_validator("scorers", "against")(distinct)

    @property
    def result_name(self) -> str:
        """Name of the result."""
        return f"evaluation-{self.name}"


class EffectsSpec(_Spec):
    """Which features of which SAEs of the study, by their names, are changed, by how much, and on which prompts.

    Of each concept value, the features with the highest AUROC are changed on prompts with that value, each alone and
    `together` of them at once, as are those of `sets` and random ones as a null. Of several SAEs, as many of each are
    changed at once. `members`, the features of each set in each SAE, is filled in when the spec is made.
    """

    names: Names = Field(min_length=1)
    weights: dict[str, str] = {}
    concepts: Names = Field((), description="Concept whose features are changed; by default all.")
    features: int = Field(3, ge=1, le=MOST_RUNS, description="Features of each concept value.")
    together: int = Field(
        16,
        ge=0,
        le=MOST_RUNS,
        description="The best features of each concept value that are also changed all at once; 0 for none.",
    )
    sets: Names = Field(
        (),
        description="Set of features of the study's notes, which are also changed all at once, on prompts with each "
        "value.",
    )
    members: dict[str, tuple[tuple[int, ...], ...]] = {}
    factors: tuple[float, ...] = Field(
        (0.0, 2.0), min_length=1, description="Factor by which the activations are multiplied."
    )
    pairs: int = Field(12, ge=1, le=MOST_RUNS, description="Prompts with each value, with a counterpart.")
    randoms: int = Field(
        5,
        ge=0,
        le=MOST_RUNS,
        description="Random features, and random sets of features, of each value, as a null.",
    )
    ignore_gate: bool = Field(False, description="Change features also at steps that the gate closes.")

    _distinct = field_validator("names", "scorers", "concepts", "sets", "factors")(distinct)

    @property
    def result_name(self) -> str:
        """Name of the result."""
        return f"feature-effects-{file_name('+'.join(self.names))}"
