"""Contrastive activation addition: directions as differences of mean activations (TADA, arXiv 2602.11910, Eq. 6)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site, parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Pair, PromptSet, asked_prompt_set
from workbench.seeds import Seed, consecutive_seeds
from workbench.validation import must_be, validated

PAIRS_PER_BATCH = 4


def caa(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    *,
    positive: str = "",
    negative: str = "",
    prompts: str | PromptSet = "organism",
    pairs: int = 16,
    seed: int = 0,
    settings: GenerationSettings | None = None,
) -> Vector:
    """Compute a concept's direction at each site and step: the mean difference of the site's output within pairs.

    The mean is over counterfactual pairs, which differ only in the concept and share their noise, and over tokens, in
    the cond pass; each pair has a different seed, from `seed` on. The direction points towards the value `positive`, by
    default the concept's first in the prompt set, and away from `negative`, by default all others. It is not
    normalised; TADA normalises it to unit length.

    Raises:
        UserError: if a concept, value, site or prompt set is unknown, or there are fewer pairs.
    """
    must_be(AudioDiffusionModel, model, "A vector is made with a model, such as wb.load('organism-shared')")
    settings = settings_or_default(settings)
    drawn = validated(_Drawn, {"pairs": pairs, "seed": seed}, "Invalid vector")
    prompt_set = asked_prompt_set(prompts)
    positive, negatives = _ends(prompt_set, concept, positive, negative)
    chosen = _pairs(prompt_set, concept, positive, negatives, drawn.pairs, drawn.seed)
    kept = parse_sites(sites, model.n_blocks, model.block_names)
    means = _mean_differences(model, chosen, drawn.seed, kept, settings)
    steps = {"step": range(settings.num_steps), "sigma": ("step", model.sigmas(settings))}
    directions = {
        str(site): xr.DataArray(values, steps, ("step", "channel"), name=str(site))
        for site, values in means.items()
    }
    ends = (concept, positive, " or ".join(negatives))
    return Vector(*ends, directions, model.describe(), settings, len(chosen))


@dataclass(frozen=True)
class _Drawn:
    """Number of pairs, and the seed with which they are drawn."""

    pairs: int
    seed: Seed


def _ends(prompts: PromptSet, concept: str, positive: str, negative: str) -> tuple[str, list[str]]:
    """Return the value that the direction points towards, and those that it points away from."""
    must_be(str, concept, "A concept must be given by its name")
    if concept not in prompts.concepts:
        raise UserError(
            f"Unknown concept '{concept}'. Concepts of this prompt set: {', '.join(prompts.concepts)}."
        )
    values = list(prompts.concepts[concept])
    for value in filter(None, (positive, negative)):
        if value not in values:
            raise UserError(f"Unknown value '{value}' of {concept}. Values: {', '.join(values)}.")
    positive = positive or next(value for value in values if value != negative)
    negatives = [negative] if negative else [value for value in values if value != positive]
    if negatives == [positive]:
        raise UserError(f"The two values of {concept} must differ; both are '{positive}'.")
    return positive, negatives


def _pairs(
    prompts: PromptSet, concept: str, positive: str, negatives: Sequence[str], n: int, seed: int
) -> list[Pair]:
    """Return pairs whose clean prompt has the positive value and whose corrupt prompt has a negative one."""
    swaps = len(list(itertools.permutations(prompts.concepts[concept], 2)))
    every = prompts.n_pairs(concept)
    drawn = prompts.pairs(concept, min(n * swaps, every) if n > 0 else every, seed)
    fitting = [pair for pair in drawn if pair.clean_value == positive and pair.corrupt_value in negatives]
    if not 0 < n <= len(fitting):
        raise UserError(
            f"The number of pairs of {concept} must be from 1 to {len(fitting)} (from {' or '.join(negatives)} to "
            f"{positive}) for this prompt set; got {n}."
        )
    return fitting[:n]


def _mean_differences(
    model: AudioDiffusionModel,
    pairs: Sequence[Pair],
    seed: int,
    sites: Sequence[Site],
    settings: GenerationSettings,
) -> dict[Site, Float[np.ndarray, "step channel"]]:
    """Return, by site, the mean over pairs and tokens of the clean run's output minus the corrupt run's (cond pass)."""
    sums = {site: np.zeros((settings.num_steps, model.channels(site))) for site in sites}
    capture = Capture(tuple(sites), tuple(range(settings.num_steps)), ("cond",))

    def add_difference(site: Site, step: int, values: Float[torch.Tensor, "clip pass token channel"]) -> None:
        of_clips = values[:, 0].double().mean(dim=1).cpu().numpy()
        sums[site][step] += (of_clips[::2] - of_clips[1::2]).sum(axis=0)

    seeds = consecutive_seeds(seed, len(pairs)).tolist()
    clips = [
        Clip(prompt.text, own)
        for pair, own in zip(pairs, seeds, strict=True)
        for prompt in (pair.clean, pair.corrupt)
    ]
    for first in range(0, len(clips), 2 * PAIRS_PER_BATCH):
        batch = clips[first : first + 2 * PAIRS_PER_BATCH]
        model.generate_batch(batch, settings, capture=capture, sink=add_difference)
    return {site: total / len(pairs) for site, total in sums.items()}
