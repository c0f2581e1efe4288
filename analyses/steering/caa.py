"""Contrastive activation addition: directions as differences of mean activations (TADA, arXiv 2602.11910, Eq. 6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BeforeValidator, Field

from analyses.steering.directions import labelled
from analyses.steering.examples import Example, pair_examples
from analyses.steering.pairs import ends, pairs_towards
from analyses.steering.reliability import GROUPS, reliability
from analyses.steering.vector import Vector
from cache.errors import UserError
from cache.protocol import Pass
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site, parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import PromptSet, asked_prompt_set
from workbench.seeds import Seed, consecutive_seeds
from workbench.validation import must_be, validated

PAIRS_PER_BATCH = 4
UNIT = "the mean difference of activations within pairs, positive minus negative"
Time = Literal["constant", "token"] | int
"""How a direction changes along the clip; a number is the length of a cycle in tokens."""


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
    passes: Sequence[Pass] = ("cond",),
    time: Time = "constant",
    settings: GenerationSettings | None = None,
) -> Vector:
    """Compute a concept's direction at each site, pass and step: the mean difference of its output within pairs.

    The mean is over counterfactual pairs, which differ only in the concept and share their noise; each pair has a
    different seed, from `seed` on. The direction points towards the value `positive`, by default the concept's first
    in the prompt set, and away from `negative`, by default all others. It is not normalised; TADA normalises it to
    unit length.

    Along the clip the direction is `constant`, the mean over tokens, as in TADA; or one for each `token`; or, with a
    number, one for each phase of a cycle of so many tokens. Constant directions cannot carry rhythm.

    Raises:
        UserError: if a concept, value, site, pass or prompt set is unknown, there are fewer pairs, or a cycle is longer
            than the clip.
    """
    must_be(AudioDiffusionModel, model, "A vector is made with a model, such as wb.load('organism-shared')")
    settings = settings_or_default(settings)
    asked = {"pairs": pairs, "seed": seed, "passes": passes, "time": time}
    drawn = validated(_Drawn, asked, "Invalid vector")
    prompt_set = asked_prompt_set(prompts)
    positive, negatives = ends(prompt_set, concept, positive, negative)
    chosen = pairs_towards(prompt_set, concept, positive, negatives, drawn.pairs, drawn.seed)
    kept = parse_sites(sites, model.n_blocks, model.block_names)
    capture = Capture(tuple(kept), tuple(range(settings.num_steps)), tuple(drawn.passes))
    model.check_capture(capture, settings)
    for site in kept:
        _check_time(drawn.time, site, model.tokens_at(site, settings.duration))
    examples = pair_examples(chosen, consecutive_seeds(drawn.seed, len(chosen)).tolist())
    sums = _differences(model, examples, drawn, capture, settings)
    sigmas = model.sigmas(settings)
    directions = {
        site: labelled(groups.sum(axis=0) / len(chosen), site, drawn.passes, sigmas)
        for site, groups in sums.items()
    }
    return Vector(
        method="caa",
        concept=concept,
        positive=positive,
        negative=" or ".join(negatives),
        directions=directions,
        unit=UNIT,
        model=model.describe(),
        settings=settings,
        sampling=model.sampling(settings),
        examples=examples,
        reliability=reliability(sums, drawn.passes, len(chosen)),
        cycle=isinstance(drawn.time, int),
    )


def _checked_time(time: Any) -> Time:
    if time in ("constant", "token") or (type(time) is int and time >= 1):
        return cast(Time, time)
    raise ValueError(f"must be 'constant', 'token' or the number of tokens of a cycle, not {time!r}")


@dataclass(frozen=True)
class _Drawn:
    """Number of pairs, the seed with which they are drawn, and what is kept of them."""

    pairs: int
    seed: Seed
    passes: Annotated[tuple[Pass, ...], Field(min_length=1)]
    time: Annotated[Time, BeforeValidator(_checked_time)]


def _check_time(time: Time, site: Site, tokens: int) -> None:
    """Raise UserError for directions along the clip that the site cannot have."""
    if time != "constant" and site.on_conditioning:
        raise UserError(
            f"{site} has no latent time. Make a direction that is constant in time (time='constant')."
        )
    if isinstance(time, int) and time > tokens:
        raise UserError(f"The cycle must be at most the {tokens} tokens of {site}; got {time}.")


def _differences(
    model: AudioDiffusionModel,
    examples: Sequence[Example],
    drawn: _Drawn,
    capture: Capture,
    settings: GenerationSettings,
) -> dict[str, Float[np.ndarray, "group pass step *token channel"]]:
    """Return, by site, the clean run's output minus the corrupt run's, summed over the pairs of each group."""
    n_groups = min(len(examples) // 2, GROUPS)
    sums: dict[str, dict[int, list[Any]]] = {str(site): {} for site in capture.sites}
    first = 0

    def add_differences(
        site: Site, step: int, values: Float[torch.Tensor, "clip pass token channel"]
    ) -> None:
        wide = values.double()
        groups = sums[str(site)].setdefault(step, [0.0] * n_groups)
        for place, difference in enumerate(wide[::2] - wide[1::2], first // 2):
            groups[place % n_groups] += _along_time(difference, drawn.time).cpu().numpy()

    clips = [Clip(example.prompt, example.seed) for example in examples]
    for first in range(0, len(clips), 2 * PAIRS_PER_BATCH):
        batch = clips[first : first + 2 * PAIRS_PER_BATCH]
        model.generate_batch(batch, settings, capture=capture, sink=add_differences)
    return {
        site: np.stack([np.stack(of_steps[step]) for step in capture.steps], axis=2)
        for site, of_steps in sums.items()
    }


def _along_time(
    values: Float[torch.Tensor, "pass token channel"], time: Time
) -> Float[torch.Tensor, "pass *kept channel"]:
    """Return the mean over tokens, every token, or the mean of each phase of a cycle."""
    if time == "token":
        return values
    if time == "constant":
        return values.mean(dim=1)
    return torch.stack([values[:, phase::time].mean(dim=1) for phase in range(time)], dim=1)
