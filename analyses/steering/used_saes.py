"""The sparse autoencoders that directions or features are of, with the steps at which they may not be used."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from analyses.steering.header import Line, Strict, rises
from workbench.sae.base import SAE
from workbench.sae.gate import GatedStep, closed_steps, refusal
from workbench.sae.identity import weights_hash


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


def used_saes(saes: Mapping[str, SAE], sigmas: Sequence[float]) -> tuple[UsedSAE, ...]:
    """Return what there is to know of autoencoders, by site, that are used in runs with these sigmas."""
    return tuple(
        UsedSAE(
            site=site,
            name=site,
            weights=weights_hash(sae),
            closed=tuple(
                ClosedStep(step=step, reason=reason) for step, reason in closed_steps(sae, sigmas).items()
            ),
        )
        for site, sae in saes.items()
    )


def check_open(used: Sequence[UsedSAE], places: Sequence[tuple[str, int]], sigmas: Sequence[float]) -> None:
    """Raise GatedStep if one of these sites is steered at a step that is closed for an autoencoder of it."""
    closed = {(sae.site, each.step): (sae.name, each.reason) for sae in used for each in sae.closed}
    for site, step in places:
        if (site, step) in closed:
            name, reason = closed[site, step]
            which = site if name == site else f"{site} ('{name}')"
            raise GatedStep(refusal(which, step, sigmas[step], reason))
