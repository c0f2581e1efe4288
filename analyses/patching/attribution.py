"""Attribution patching: all arms of a map from one backward pass a step (Nanda 2023; Syed et al., arXiv 2310.10348)."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from analyses.patching.arms import Arm
from analyses.patching.contexts import PairContext
from analyses.patching.sweep import build_batch
from workbench.engine.edits import Intervention, PatchSpec
from workbench.engine.operators import Region
from workbench.engine.runs import GenerationSettings, Linearisation
from workbench.engine.sites import Site
from workbench.engine.visit import Edit, read_positions
from workbench.models.base import AudioDiffusionModel

BACKWARD_ROWS = 2
"""What a backward pass costs, in rows of forward passes."""


def attribute_arms(
    model: AudioDiffusionModel,
    context: PairContext,
    seed: int,
    arms: Sequence[Arm],
    settings: GenerationSettings,
    lyrics: str = "",
) -> tuple[Float[np.ndarray, " arm"], int]:
    """First-order estimate of `velocity_screen`'s scores, and what it took in denoiser rows.

    The proxy of the score is the projection of the velocity on v_clean - v_corrupt, at the corrupt run's latents; an
    arm's attribution is the sum over its sites of (a_clean - a_corrupt) times the proxy's gradient, over the steps
    in which it acts. A conditioning patch is linearised in the keys and values that it exchanges.
    """
    batch = build_batch(context, seed, [], lyrics, probe=True)
    run = model.generate_batch(batch.clips, settings, velocity_steps=range(settings.num_steps))
    sites = sorted({site for arm in arms for site in _sites(arm)}, key=lambda site: site.order)
    where = model.positions(batch.clips, settings, [Intervention(1, _spec(arm), 0) for arm in arms])
    totals, whole, rows = np.zeros(len(arms)), 0.0, run.rows
    sigmas = model.sigmas(settings)
    for step, (sigma, size) in enumerate(zip(sigmas, model.step_sizes(settings), strict=True)):
        clean, corrupt = run.velocities[step]
        difference = clean - corrupt
        whole += size * float((difference.double() ** 2).sum())
        there = model.linearise(run.inputs[step], 0, sites)
        here = model.linearise(run.inputs[step], 1, sites, difference)
        rows += 2 + BACKWARD_ROWS
        for i, (arm, positions) in enumerate(zip(arms, where, strict=True)):
            if _spec(arm).acts_at(step, sigma, "cond"):
                for site in _sites(arm):
                    where_read = read_positions(positions, model.reads(site.block))
                    edit = Edit(_spec(arm), 0, (0,), where_read)
                    totals[i] += size * attribution(here, there, [site], edit, model.head_dim)
    return totals / whole if whole else np.full(len(arms), np.nan), rows


def attribution(
    here: Linearisation,
    there: Linearisation,
    sites: Sequence[Site],
    edit: Edit,
    head_dim: Callable[[int], int],
) -> float:
    """First-order effect on the objective of `here` of taking the sites' values from `there`, in the edit's region."""
    total = 0.0
    for site in sites:
        change = there.values[site][edit.sources[0]] - here.values[site][edit.row]
        product = change.double() * here.gradients[site][edit.row].double()
        total += float(Region(edit.spec, edit.positions, head_dim(site.block)).read(product).sum())
    return total


def _spec(arm: Arm) -> PatchSpec:
    (edit,) = arm.edits
    assert isinstance(edit.spec, PatchSpec)
    return edit.spec


def _sites(arm: Arm) -> list[Site]:
    """Where an arm's patch changes values: a conditioning patch in keys and values."""
    spec = _spec(arm)
    sites = [Site.parse(site) for site in spec.sites]
    if spec.mode == "output":
        return sites
    parts = [part for part, name in (("k", "keys"), ("v", "values")) if name in spec.carry]
    return [Site(site.block, f"cross_attn.{part}") for site in sites for part in parts]
