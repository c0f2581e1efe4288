"""Attribution patching: all arms from one backward pass per step (Nanda 2023; Syed et al., arXiv 2310.10348)."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from analyses.patching.arms import Arm
from analyses.patching.contexts import PairContext
from analyses.patching.sweep import runs_of_pair
from workbench.engine.runs import Linearisation
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.engine.visit import CallEdit
from workbench.models.base import AudioDiffusionModel

BACKWARD_ROWS = 2
"""Cost of a backward pass, in rows of forward passes."""


def attribute_arms(
    model: AudioDiffusionModel,
    context: PairContext,
    seed: int,
    arms: Sequence[Arm],
    settings: GenerationSettings,
    lyrics: str = "",
) -> tuple[Float[np.ndarray, " arm"], int]:
    """Estimate the scores of `velocity_screen` to first order; return them with the cost in denoiser rows.

    The objective is the projection of the velocity on v_clean - v_corrupt, at the corrupt run's latents. An arm's
    attribution is the sum, over its sites and the steps in which it acts, of (a_clean - a_corrupt) times the
    objective's gradient. A conditioning patch is linearised in the keys and values that it replaces.
    """
    run = model.generate_batch(
        runs_of_pair(context, seed, [], lyrics, follow_corrupt=True),
        settings,
        velocity_steps=range(settings.num_steps),
    )
    planned = model.plan(runs_of_pair(context, seed, arms, lyrics), settings)
    by_row = {placed.row: placed for placed in planned.edits}
    edits = [CallEdit(by_row[row].edit, 0, (0,), by_row[row].positions) for row in planned.requested[2:]]
    sites = sorted({site for edit in edits for site in edit.edit.value_sites}, key=lambda site: site.order)
    totals, whole, rows = np.zeros(len(arms)), 0.0, run.rows
    sigmas = model.sigmas(settings)
    for step, (sigma, size) in enumerate(zip(sigmas, model.step_sizes(settings), strict=True)):
        clean, corrupt = run.velocities[step]
        difference = clean - corrupt
        whole += size * float((difference.double() ** 2).sum())
        there = model.linearise(run.inputs[step], 0, sites)
        here = model.linearise(run.inputs[step], 1, sites, difference)
        rows += 2 + BACKWARD_ROWS
        for i, edit in enumerate(edits):
            if edit.edit.window.acts_at(step, sigma, "cond"):
                for site in edit.edit.value_sites:
                    in_block = edit.read_by(model.reads(site.block))
                    totals[i] += size * attribution(here, there, [site], in_block, model.head_dim)
    return totals / whole if whole else np.full(len(arms), np.nan), rows


def attribution(
    here: Linearisation,
    there: Linearisation,
    sites: Sequence[Site],
    edit: CallEdit,
    head_dim: Callable[[int], int],
) -> float:
    """Return the first-order effect on the objective of `here` of patching the region of `edit` from `there`."""
    total = 0.0
    for site in sites:
        change = there.values[site][edit.sources[0]] - here.values[site][edit.row]
        product = change.double() * here.gradients[site][edit.row].double()
        total += float(edit.region(head_dim(site.block)).read(product).sum())
    return total
