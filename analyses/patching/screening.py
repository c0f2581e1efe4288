"""Cheap screening maps: the effect of a patch on the velocity along the corrupt run, which it does not change."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy import stats

from analyses.patching.arms import Arm
from analyses.patching.attribution import attribute_arms
from analyses.patching.contexts import PairContext
from analyses.patching.sweep import runs_of_pair
from cache.errors import UserError
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.studies.study import Study


def velocity_screen(
    model: AudioDiffusionModel,
    context: PairContext,
    seed: int,
    arms: Sequence[Arm],
    settings: GenerationSettings,
    lyrics: str = "",
) -> tuple[Float[np.ndarray, " arm"], int]:
    """Return the fraction of the clean-corrupt difference in velocity that each arm restores, and the denoiser rows.

    Along the corrupt run, with v the cond pass's velocity and Δσ the step's size, an arm's score is
    sum Δσ <v_arm - v_corrupt, v_clean - v_corrupt> / sum Δσ |v_clean - v_corrupt|²: the projection summed over the
    steps in which the arm acts, over the whole run's sum. All arms read the same latents, so one run serves them all.
    """
    runs = runs_of_pair(context, seed, arms, lyrics, follow_corrupt=True)
    run = model.generate_batch(runs, settings, velocity_steps=range(settings.num_steps))
    projected = np.zeros(len(arms))
    whole = 0.0
    for step, size in enumerate(model.step_sizes(settings)):
        clean, corrupt, *patched = run.velocities[step].double()
        difference = clean - corrupt
        whole += size * float((difference**2).sum())
        if patched:
            changes = torch.stack(patched) - corrupt
            projected += size * (changes * difference).sum(dim=(1, 2)).cpu().numpy()
    return projected / whole if whole else np.full(len(arms), np.nan), run.rows


def check_screening(arms: Sequence[Arm]) -> list[Arm]:
    """Return the cells to screen.

    Raises:
        UserError: if one cannot be screened, because it ablates, edits the clean run, or follows a path.
    """
    cells = [arm for arm in arms if arm.role == "cell"]
    unfit = [arm.name for arm in cells if arm.direction != "sufficiency" or arm.sources != {"clean"}]
    if unfit:
        raise UserError(
            f"'{unfit[0]}' cannot be screened; only patches from the clean into the corrupt run can. Leave out "
            "necessity, ablations and paths."
        )
    return cells


def screen_arms(
    study: Study,
    model: AudioDiffusionModel,
    method: str,
    contexts: Mapping[str, Sequence[PairContext]],
    arms: Sequence[Arm],
) -> xr.DataArray:
    """Return every cell's (concept, arm) mean screening score over the pairs; `attrs["rows"]` counts denoiser rows.

    Each pair is screened with its first seed. Raises UserError as `check_screening` does.
    """
    cells = check_screening(arms)
    screen = {"velocity": velocity_screen, "attribution": attribute_arms}[method]
    values, rows = [], 0
    for pairs in contexts.values():
        found = []
        for context in pairs:
            scores, computed = screen(
                model, context, context.seeds[0], cells, study.spec.settings, study.spec.lyrics
            )
            found.append(scores)
            rows += computed
        values.append(np.mean(found, axis=0))
    coords = {"concept": list(contexts), "arm": [arm.name for arm in cells]}
    return xr.DataArray(np.array(values), coords=coords, dims=("concept", "arm"), attrs={"rows": rows})


def choose_arms(
    screen: xr.DataArray, arms: Sequence[Arm], top: int, sample: int, seed: int
) -> dict[str, list[Arm]]:
    """Return the arms to confirm for each concept: its `top` arms, a random `sample` of the others, all null arms."""
    chosen = {}
    for concept in screen.concept.values:
        order = (
            screen.sel(concept=concept).to_series().sort_values(ascending=False, kind="stable").index.tolist()
        )
        drawn = random.Random(f"{concept}-{seed}").sample(order[top:], min(sample, len(order[top:])))
        wanted = {*order[:top], *drawn}
        chosen[str(concept)] = [arm for arm in arms if arm.name in wanted or arm.role == "null"]
    return chosen


def rank_agreement(screen: xr.DataArray, exact: xr.DataArray) -> xr.DataArray:
    """Return Spearman's rank correlation, by concept, of screening scores and exact impacts over arms that have both.

    Both are floored at 0, like the paper's impact: otherwise arms without an effect would be ranked by their noise,
    some of them below arms that cannot have any effect.
    """

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        known = ~np.isnan(a) & ~np.isnan(b)
        if known.sum() < 3 or any(np.ptp(values[known].clip(min=0)) == 0 for values in (a, b)):
            return float("nan")
        return float(stats.spearmanr(a[known].clip(min=0), b[known].clip(min=0)).statistic)

    return xr.apply_ufunc(correlation, screen, exact, input_core_dims=[["arm"], ["arm"]], vectorize=True)
