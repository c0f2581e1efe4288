"""What a site's output may be replaced by: an SAE's reconstruction, and the two ablations that it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float

from workbench.engine.edits import SELF, Edit, ablate, patch_reconstruction
from workbench.engine.edits.window import Window
from workbench.sae.base import SAE
from workbench.sae.topk import TopKConfig, TopKSAE
from workbench.sae.transcoder import Transcoder

RECONSTRUCTION, MEAN, ZERO = "reconstruction", "mean", "zero"
REPLACEMENTS = (RECONSTRUCTION, MEAN, ZERO)
ABLATIONS = (MEAN, ZERO)


def replacements(
    sae: SAE, site: str, pass_name: str, means: Mapping[int, Float[torch.Tensor, " channel"]]
) -> dict[str, tuple[Edit, ...]]:
    """Return edits that replace a site's output at some steps, by the name of what replaces it.

    Args:
        sae: the autoencoder; a transcoder reconstructs the site from the one that it reads.
        site: the site.
        pass_name: the pass in which it is replaced.
        means: the mean of its outputs at each step at which it is replaced.
    """
    window = Window(passes=(pass_name,))  # type: ignore[arg-type]  # checked when the edits are made
    return {
        RECONSTRUCTION: by_step(patch_reconstruction(sae, site, SELF), tuple(means), window),
        MEAN: tuple(
            edit for step, mean in means.items() for edit in by_step(_constant(mean, site), [step], window)
        ),
        ZERO: by_step(ablate(site, "zero"), tuple(means), window),
    }


def written_site(sae: SAE, site: str) -> str:
    """Return the site that an SAE of a site reconstructs: another one for a transcoder."""
    written = sae.config.metadata.get("hook_name_out")
    return written if isinstance(sae, Transcoder) and isinstance(written, str) else site


def by_step(edit: Edit, steps: Sequence[int], window: Window) -> tuple[Edit, ...]:
    """Return the edit in the window at each of some steps."""
    return tuple(replace(edit, window=replace(window, steps=(step, step))) for step in steps)


def _constant(value: Float[torch.Tensor, " channel"], site: str) -> Edit:
    """Return an edit that puts a constant in the place of a site's output: an SAE whose feature is never active."""
    config = TopKConfig(d_in=len(value), d_sae=1, k=1)
    weights = {name: value.new_zeros(shape) for name, shape in TopKSAE.shapes(config).items()}
    return patch_reconstruction(TopKSAE(config, {**weights, "b_dec": value}), site, SELF)
