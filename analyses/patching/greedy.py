"""Grow a small set of blocks that restores a concept, one block at a time."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from analyses.patching.arms import Arm
from analyses.patching.dataset import score_array
from analyses.patching.impact import impact
from analyses.patching.sweep import Sweep


class GreedyStep(TypedDict):
    """The blocks of a set, and the fraction of the concept that it restores."""

    blocks: list[int]
    fraction: float


def grow_sets(
    sweep: Sweep, set_arm: Callable[[Sequence[int]], Arm], n_blocks: int, goal: float
) -> tuple[list[Arm], dict[str, list[GreedyStep]]]:
    """For each concept, add the block that restores most until the fraction `goal` is restored, or all blocks are in.

    Args:
        sweep: runs and scores the arms of the sets.
        set_arm: returns the arm that patches the given blocks together.
        n_blocks: number of blocks of the model.
        goal: fraction of the concept to restore, according to the first scorer.

    Returns:
        The arms of the sets, and the steps of each concept.
    """
    added: dict[str, Arm] = {}
    steps: dict[str, list[GreedyStep]] = {concept: [] for concept in sweep.contexts}
    for concept, contexts in sweep.contexts.items():
        chosen: tuple[int, ...] = ()
        fraction = 0.0
        while fraction < goal and len(chosen) < n_blocks:
            groups = [tuple(sorted((*chosen, block))) for block in range(n_blocks) if block not in chosen]
            candidates = [set_arm(group) for group in groups]
            for _ in sweep.run({concept: candidates}, range(len(contexts))):
                pass
            found = impact(score_array(sweep, {concept: contexts}, candidates)).isel(concept=0, scorer=0)
            values = found.impact.sel(arm=[arm.name for arm in candidates]).values
            if np.isnan(values).all():
                break
            best = int(np.nanargmax(values))
            chosen, fraction = groups[best], float(values[best])
            added[candidates[best].name] = candidates[best]
            steps[concept].append({"blocks": list(chosen), "fraction": fraction})
    return list(added.values()), steps
