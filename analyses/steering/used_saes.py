"""The sparse autoencoders that directions or features are of, with the steps at which they may not be used."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from analyses.steering.header import Line, Strict, rises


class ClosedStep(Strict):
    """A step at which an autoencoder may not be used, and why."""

    model_config = ConfigDict(frozen=True)

    step: int = Field(ge=0)
    reason: Line


class UsedSAE(Strict):
    """An autoencoder of a site: its name in its study, or that of the site; a hash of its weights; its closed steps.

    The steps are those of the vector (see `workbench.sae.gate`).
    """

    model_config = ConfigDict(frozen=True)

    site: Line
    name: Line
    weights: Line
    closed: tuple[ClosedStep, ...]

    @model_validator(mode="after")
    def _rising(self) -> "UsedSAE":
        if not rises([each.step for each in self.closed]):
            raise ValueError("closed steps must rise")
        return self

    def at_steps(self, steps: Sequence[int]) -> "UsedSAE":
        """Return it for a vector whose steps are these ones of the present vector."""
        reasons = {each.step: each.reason for each in self.closed}
        closed = [
            ClosedStep(step=step, reason=reasons[old]) for step, old in enumerate(steps) if old in reasons
        ]
        return self.model_copy(update={"closed": tuple(closed)})


def _of_different(used: tuple[UsedSAE, ...]) -> tuple[UsedSAE, ...]:
    places = [(each.site, each.weights) for each in used]
    if len(set(places)) < len(places):
        raise ValueError("an autoencoder is given twice for a site")
    return used


UsedSAEs = Annotated[tuple[UsedSAE, ...], AfterValidator(_of_different)]
"""The autoencoders of all sites; several of a site if vectors were stacked."""
