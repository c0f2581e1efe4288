"""Pairs on which a vector of a descriptor is tried: prompts to steer, each beside one whose clips have much of it."""

from itertools import cycle, islice

import pandas as pd

from analyses.probes.ridge import measured_values
from analyses.steering_spec import SteeringSpec
from cache.errors import UserError
from workbench.prompts.prompt_sets import Pair, Prompt, PromptSet
from workbench.scorers.descriptor_scorer import high
from workbench.scorers.descriptors import DESCRIPTORS
from workbench.studies.study import Study

SHARE = 0.25
"""Share of the study's prompts that are examples of much of a descriptor."""


def is_descriptor(prompts: PromptSet, concept: str) -> bool:
    """Whether a steered concept is a descriptor of the audio, not a concept of the prompt set."""
    return concept in DESCRIPTORS and concept not in prompts.concepts


def descriptor_pairs(study: Study, spec: SteeringSpec) -> list[Pair]:
    """Return pairs whose clean prompts have much of a descriptor, and whose corrupt prompts are others.

    No prompt names a descriptor, so the real prompts with much of it, to which steering is compared, are the quarter of
    the study's prompts whose traced clips have most. The others are drawn from the prompt set. Those that are steered
    (`spec.steered`) are none of `spec.without`.

    Raises:
        UserError: if there are no such prompts, or a clip's recording is missing.
    """
    values = measured_values(study, [spec.concept])[spec.concept]
    by_prompt = pd.Series(values).groupby(study.clips["prompt"].to_numpy(str)).mean().dropna()
    by_prompt = by_prompt.sort_values(ascending=False, kind="stable")
    most = [str(prompt) for prompt in by_prompt.index[: max(1, round(SHARE * len(by_prompt)))]]
    steers_most = spec.steered == "positive"
    examples = [prompt for prompt in most if not (steers_most and prompt in spec.without)]
    prompts = study.spec.prompts
    taken = {*most} if steers_most else {*most, *spec.without}
    every = prompts.fill(prompts.n_prompts, spec.seed)
    others = [prompt for prompt in every if prompt.text not in taken][: spec.pairs]
    if not (examples and others):
        raise UserError(
            f"No prompt is left to try the vector of {spec.concept} on, beside those that it was computed from and "
            "those whose clips have most of it. Compute it from fewer clips, or trace more prompts."
        )
    by_text = {prompt.text: prompt for prompt in every}
    clean = islice(cycle(by_text.get(text, Prompt(text, {})) for text in examples), len(others))
    return [
        Pair(spec.concept, one, other, high(spec.concept)) for one, other in zip(clean, others, strict=True)
    ]
