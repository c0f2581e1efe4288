"""The spec of probes. Imports nothing slow: `workbench probe` takes its options from here."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from workbench.scorers.descriptors import DescriptorNames
from workbench.seeds import Seed


class ProbeSpec(BaseModel):
    """Settings for probing a study. Empty `sites`, `steps` or `concepts` mean all that the study has.

    `descriptors` are predicted by ridge regression, beside the concepts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    concepts: tuple[str, ...] = Field((), description="Concept to probe; all by default.")
    descriptors: DescriptorNames = Field(
        (),
        description="Descriptor of the audio to predict; by default those of the study's prompt set.",
    )
    sites: tuple[str, ...] = Field((), description="Site to probe; all cached ones by default.")
    steps: tuple[int, ...] = Field((), description="Step to probe; all cached ones by default.")
    pass_name: str = Field("cond", description="Guidance pass to probe.")
    folds: int = Field(5, ge=2, description="Number of cross-validation folds.")
    shuffles: int = Field(
        3, ge=1, description="Label shuffles per probe; more are used if there are few probes."
    )
    C: float = Field(0.1, gt=0, description="Inverse strength of the probes' L2 penalty.")
    seed: Seed = Field(0, description="Seed of the folds and control labels.")

    @field_validator("concepts", "sites", "steps", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str | int) else given

    @field_validator("concepts", "sites", "steps")
    @classmethod
    def _check_distinct(cls, given: tuple[str | int, ...]) -> tuple[str | int, ...]:
        twice = next((value for place, value in enumerate(given) if value in given[:place]), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is given twice; give each one once")
        return given
