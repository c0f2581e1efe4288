"""Clips of a study's prompts, to measure descriptors of their audio."""

from collections.abc import Collection
from itertools import cycle, islice

from cache.errors import UserError
from workbench.engine.runs import Clip
from workbench.seeds import consecutive_seeds
from workbench.studies.study import Study


def study_clips(study: Study, n: int, seed: int, without: Collection[str] = ()) -> list[Clip]:
    """Return `n` clips of prompts of the study's prompt set, drawn with `seed`, except the texts `without`.

    Each has its own noise, with the seeds from `seed` on. If there are fewer prompts, they are used more than once.

    Raises:
        UserError: if no prompt is left.
    """
    prompts = study.spec.prompts
    left = prompts.n_prompts - len(
        {*without} & {prompt.text for prompt in prompts.fill(prompts.n_prompts, 0)}
    )
    if not left:
        raise UserError(
            f"The vector was computed from all {prompts.n_prompts} prompts of the study, so that none is left "
            "to try it on. Compute it from fewer clips."
        )
    drawn = [prompt.text for prompt in prompts.fill(min(n, left), seed, without)]
    seeds = consecutive_seeds(seed, n).tolist()
    return [
        Clip(prompt, number, study.spec.lyrics)
        for prompt, number in zip(islice(cycle(drawn), n), seeds, strict=True)
    ]
