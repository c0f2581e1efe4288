"""What a site's output may be replaced by: an SAE's reconstruction, and the two ablations that it is compared with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float

from workbench.engine.edits import SELF, Edit, ablate, patch_reconstruction
from workbench.engine.edits.window import Window
from workbench.sae.base import SAE
from workbench.sae.topk import TopKConfig, TopKSAE

RECONSTRUCTION, MEAN, ZERO = "reconstruction", "mean", "zero"
REPLACEMENTS = (RECONSTRUCTION, MEAN, ZERO)
ABLATIONS = (MEAN, ZERO)


def replacements(
    sae: SAE, site: str, pass_name: str, means: Mapping[int, Float[torch.Tensor, " channel"]]
) -> dict[str, tuple[Edit, ...]]:
    """Return edits that replace a site's output at some steps, by the name of what replaces it.

    Args:
        sae: the autoencoder, which is applied as `sae.at(step)`.
        site: the site.
        pass_name: the pass in which it is replaced.
        means: the mean of its outputs at each step at which it is replaced.
    """
    window = Window(passes=(pass_name,))  # type: ignore[arg-type]  # checked when the edits are made
    return {
        RECONSTRUCTION: by_step(sae, tuple(means), window, lambda own: patch_reconstruction(own, site, SELF)),
        MEAN: tuple(
            replace(_constant(mean, site), window=replace(window, steps=(step, step)))
            for step, mean in means.items()
        ),
        ZERO: tuple(
            replace(ablate(site, "zero"), window=replace(window, steps=(step, step))) for step in means
        ),
    }


def by_step(sae: SAE, steps: Sequence[int], window: Window, edit: Callable[[SAE], Edit]) -> tuple[Edit, ...]:
    """Return an edit with `sae.at(step)` for each step; `edit` is called once for each different SAE."""
    own = [sae.at(step) for step in steps]
    edits = {each: edit(each) for each in dict.fromkeys(own)}
    return tuple(
        replace(edits[each], window=replace(window, steps=(step, step)))
        for each, step in zip(own, steps, strict=True)
    )


def _constant(value: Float[torch.Tensor, " channel"], site: str) -> Edit:
    """Return an edit that puts a constant in the place of a site's output: an SAE whose feature is never active."""
    config = TopKConfig(d_in=len(value), d_sae=1, k=1)
    weights = {name: value.new_zeros(shape) for name, shape in TopKSAE.shapes(config).items()}
    return patch_reconstruction(TopKSAE(config, {**weights, "b_dec": value}), site, SELF)
