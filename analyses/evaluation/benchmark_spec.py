"""The spec of an evaluation of steering. Imports nothing slow: `workbench steer evaluate` has its options from here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from analyses.steering_spec import PROMPT_METHODS
from workbench.scorers import SCORERS
from workbench.scorers.distances import DISTANCES
from workbench.seeds import Seed
from workbench.validation import Names, distinct

VECTOR_METHODS = ("caa", "caa-same-latents", "caa-by-token", "austeer", "sae-features", "probe")
"""Methods that compute a vector: CAA as published, at the same latents, and there with a direction for each token."""
METHODS = (*VECTOR_METHODS, "concept-slider", *PROMPT_METHODS)
Place = Literal["localised", "all", "others"]
"""The blocks that decide the concept, all blocks, or as a control all but those that decide it."""
CONTROL: Place = "others"
Protocol = Literal["strict", "published"]
LONGEST_NAME = 40
MOST_RUNS = 1_000_000


class BenchmarkSpec(BaseModel):
    """What is compared: methods at places, for concepts, on held-out prompts, by which judges and distances.

    `concepts` are names, or `name=value` with the value that is steered towards. `trials` (ids of the results that it
    is computed from) and `schema_version` (of the result) are filled in when the result is made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    name: str = Field(
        "",
        pattern=r"^[\w.+-]*$",
        max_length=LONGEST_NAME,
        description="Name of the result; defaults to the protocol.",
    )
    protocol: Protocol = Field(
        "strict",
        description="strict, with controls, nulls and intervals; or published, TADA's areas and smoothness.",
    )
    concepts: Names = Field(
        (),
        description="Concept, or concept=value to steer towards another value than its first; all by default.",
    )
    methods: Names = Field((), description=f"Method; all by default: {', '.join(METHODS)}.")
    places: tuple[Place, ...] = Field(
        ("localised", "all"),
        min_length=1,
        description="Blocks: localised (--sites), all, or all others, at full strength only.",
    )
    sites: Names = Field(
        (),
        description="The localised blocks, like tf3+tf4, or of one concept, like mood=tf3; by default those with an "
        "impact of at least .1 on the concept in the study's map of blocks.",
    )
    pairs: int = Field(
        8, ge=2, le=MOST_RUNS, description="Prompts that are steered and reported, at either end."
    )
    selection_pairs: int = Field(
        4, ge=1, le=MOST_RUNS, description="Other prompts, on which each method's strength is chosen."
    )
    fit_pairs: int = Field(
        16, ge=1, le=MOST_RUNS, description="Other pairs, from which directions are computed."
    )
    seeds: int = Field(1, ge=1, le=MOST_RUNS, description="Seeds of initial noise per prompt.")
    parts: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.25, 0.5, 1.0),
        min_length=1,
        description="Part of each method's full strength, used in both directions.",
    )
    randoms: int = Field(10, ge=0, le=MOST_RUNS, description="Random vectors like CAA's, as a null.")
    scorers: Names = Field(
        ("embedded", "musicnn"),
        min_length=1,
        description=f"Judge; each reports strengths that the others chose: {', '.join(SCORERS)}.",
    )
    distances: Names = Field(
        ("log-mel",),
        min_length=1,
        description=f"Distance from the unsteered clips: {', '.join(DISTANCES)}.",
    )
    iterations: int = Field(500, ge=1, le=MOST_RUNS, description="Training steps of concept sliders.")
    learning_rate: float = Field(1e-4, gt=0, description="Learning rate of concept sliders.")
    seed: Seed = Field(0, description="Seed of the prompts, their noise and the random vectors.")
    trials: dict[str, str] = {}
    schema_version: int = 0

    _distinct = field_validator("concepts", "methods", "places", "parts", "scorers", "distances")(distinct)

    def parts_by_place(self, *, chooses: bool = False) -> dict[Place, tuple[float, ...]]:
        """Return the parts of a method's full strength at each place: of a control the largest alone.

        A trial that chooses a strength leaves out places where there is one alone, unless there are no others.
        """
        parts = {place: (max(self.parts),) if place == CONTROL else self.parts for place in self.places}
        several = {place: of_place for place, of_place in parts.items() if len(of_place) > 1}
        return several or parts if chooses else parts

    def sites_of(self, concept: str) -> str:
        """Return the localised blocks of a concept, or "" for those of the study's map."""
        named = {name: blocks for name, _, blocks in (each.rpartition("=") for each in self.sites)}
        return named.get(concept, named.get("", ""))

    @property
    def result_name(self) -> str:
        """Name of the result."""
        return f"benchmark-{self.name or self.protocol}"


def way_name(method: str, place: Place) -> str:
    """Return what results call a method at a place, such as "caa (localised)"."""
    return f"{method} ({place})"


def is_control(way: str) -> bool:
    """Return whether a way of steering is at the blocks that do not decide the concept, and so no method to compare."""
    return way.endswith(f" ({CONTROL})")
