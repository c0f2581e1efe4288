"""Linearise one call of a network: values at sites, and the gradients there of a function of the output."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float

from workbench.engine.runs import Linearisation
from workbench.engine.sites import Site
from workbench.engine.visit import CallAccess
from workbench.plain_nnsight import NNsight


def linearise(
    network: NNsight,
    access: CallAccess,
    inputs: dict[str, Any],
    sites: Sequence[Site],
    objective: Callable[[Float[torch.Tensor, "row frame channel"]], Float[torch.Tensor, ""]] | None,
    mask: Bool[torch.Tensor, "row token"] | None = None,
) -> Linearisation:
    """Run `network(**inputs)` and differentiate `objective(output)` with respect to the sites' values.

    Without an objective there are no gradients. `mask` marks the conditioning tokens that are visible to each row.
    """
    values: dict[Site, torch.Tensor] = {}
    outputs: list[torch.Tensor] = []
    ordered = sorted(sites, key=lambda site: site.order)
    given = {
        name: value.detach().requires_grad_(objective is not None)
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in inputs.items()
    }
    with torch.set_grad_enabled(objective is not None), network.trace(**given):
        for block in range(access.n_blocks):
            inside = [site for site in ordered if site.block == block]
            before = [site for site in inside if site.order < Site(block, "cross_attn.q").order]
            for site in before:
                values[site] = access.read(site)
            if mask is not None:
                access.write_mask(block, mask[:, access.reads(block)])
            for site in inside[len(before) :]:
                values[site] = access.read(site)
        result = network.output
        outputs.append(access.as_latents(result[0] if isinstance(result, tuple) else result))
    gradients: dict[Site, torch.Tensor] = {}
    if objective is not None:
        computed = torch.autograd.grad(objective(outputs[0]), list(values.values()), allow_unused=True)
        gradients = {
            site: torch.zeros_like(value) if gradient is None else gradient
            for (site, value), gradient in zip(values.items(), computed, strict=True)
        }
    return Linearisation(
        {site: value.detach() for site, value in values.items()}, gradients, outputs[0].detach()
    )
