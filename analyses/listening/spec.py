"""The rules and settings of the analysis of a listening study. Imports nothing slow: its fields are options."""

from pydantic import BaseModel, ConfigDict, Field

from workbench.seeds import Seed

HIDDEN_REFERENCE = 90.0
"""Rating of the hidden reference below which a MUSHRA trial counts against a listener (ITU-R BS.1534-3)."""


class ExclusionRules(BaseModel):
    """Which listeners are excluded."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    wrong_checks: int = Field(
        0, ge=0, description="Attention checks that a listener may have answered wrongly."
    )
    wrong_headphones: int = Field(
        0,
        ge=0,
        description="Headphone tests that a listener may have answered wrongly (of 6, Milne et al. allow none).",
    )
    hidden_reference: float = Field(
        0.15,
        ge=0,
        le=1,
        description="Share of a listener's MUSHRA trials in which the hidden reference may be rated below 90 (ITU-R "
        "BS.1534-3).",
    )
    fast: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of a listener's trials that may be answered in less time than their clips take to play.",
    )


class ListeningSpec(ExclusionRules):
    """Which listeners are excluded, and how intervals are computed."""

    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence level of the intervals.")
    seed: Seed = Field(0, description="Seed of the bootstrap.")
