"""Patches: values, or what is read of the conditioning, replaced by those of another run."""

from collections.abc import Sequence
from typing import Unpack

from workbench.engine.edits.edit import Edit, Source, as_run, make_edit
from workbench.engine.edits.window import WindowOptions
from workbench.engine.sites import Target


def patch(
    sites: str | Sequence[str],
    source: Source,
    *,
    target: Target = "conditioning",
    **window: Unpack[WindowOptions],
) -> Edit:
    """Activation patching: replace values by those of the source run in the same call.

    With the target `conditioning`, the cross-attentions at the sites read the source's conditioning (its keys, values,
    padding mask and positions, or only some `parts` of them) with the run's own queries (TADA, arXiv 2602.11910). With
    `output`, the sites' outputs are the source's.
    """
    return make_edit("patch", sites, as_run(source), window, target)


def random_patch(
    sites: str | Sequence[str],
    source: Source,
    seed: int,
    *,
    target: Target = "conditioning",
    **window: Unpack[WindowOptions],
) -> Edit:
    """Null patch of the same norm: values as far from the run's own as the source's, but in a random direction."""
    return make_edit("random_patch", sites, as_run(source), window, target, seed=seed)
