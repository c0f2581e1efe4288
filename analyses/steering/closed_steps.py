"""Find the steps that are closed for the autoencoders of directions or features, and refuse to steer there."""

from collections.abc import Mapping, Sequence

from analyses.steering.used_saes import ClosedStep, UsedSAE
from workbench.sae.base import SAE
from workbench.sae.gate import GatedStep, closed_steps, refusal
from workbench.sae.identity import weights_hash


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
