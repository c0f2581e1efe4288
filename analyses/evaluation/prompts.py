"""The prompts that evaluations run: pairs of clean prompts with a value and counterparts, scored for all concepts."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from analyses.patching.arms import Arm
from analyses.patching.contexts import PairContext, drop_indistinguishable, with_noise
from analyses.patching.sweep import RUNS, Sweep
from cache.errors import UserError
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Pair, Prompt, PromptSet
from workbench.prompts.reading import encoder
from workbench.studies.study import Study

DIMS = ("concept", "pair", "seed", "arm", "scorer")


def own_texts(prompts: PromptSet, prompt: Prompt) -> dict[str, str]:
    """Return, by concept, the text of the prompt's own value, for which its clips are scored."""
    return {
        concept: prompts.concepts[concept][value].text for concept, value in prompt.labels.items() if value
    }


def contexts_of_value(
    study: Study, model: AudioDiffusionModel, named: str, pairs: int, seed: int, seeds: int
) -> list[PairContext]:
    """Return up to `pairs` pairs whose clean prompt has a value, such as mood=sad, scored for all that prompt's values.

    As many clean prompts as possible differ, and every pair has noise of its own.

    Raises:
        UserError: if there is no such pair, or the model cannot tell the prompts of any apart.
    """
    prompts = study.spec.prompts
    concept, _, value = named.partition("=")
    every = [
        pair for pair in prompts.pairs(concept, prompts.n_pairs(concept), seed) if pair.clean_value == value
    ]
    if not every:
        raise UserError(
            f"The prompt set has no pairs of {concept} whose clean prompt has the value '{value}'."
        )
    contexts = [
        PairContext(pair, None, None, (), more_texts=_other_texts(prompts, pair))
        for pair in _new_prompts_first(every)
    ]
    encode = encoder(model, study.spec.lyrics, study.spec.settings)
    kept, _ = drop_indistinguishable({concept: contexts}, (), encode)
    return with_noise({concept: kept[concept][:pairs]}, (study.spec.seed, seed), seeds)[concept]


def _other_texts(prompts: PromptSet, pair: Pair) -> tuple[str, ...]:
    own = own_texts(prompts, pair.clean)
    return tuple(text for concept, text in own.items() if concept != pair.concept)


def _new_prompts_first(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs, each clean prompt's first one before any second one."""
    seen: dict[str, int] = {}
    turns = []
    for pair in pairs:
        turns.append(seen.get(pair.clean.text, 0))
        seen[pair.clean.text] = turns[-1] + 1
    return [pair for _, pair in sorted(zip(turns, pairs, strict=True), key=lambda each: each[0])]


def own_scores(
    sweep: Sweep, study: Study, contexts: Sequence[PairContext], arms: Sequence[Arm], concepts: Sequence[str]
) -> xr.DataArray:
    """Return the scores of runs and arms for the values of each pair's clean prompt (see `DIMS`); NaN without a value.

    The coordinate `role` along `arm` is "run", "cell" or "null".
    """
    seeds = len(contexts[0].seeds)
    values = np.full((len(concepts), len(contexts), seeds, len(RUNS) + len(arms), len(sweep.scorers)), np.nan)
    for p, context in enumerate(contexts):
        texts = own_texts(study.spec.prompts, context.pair.clean)
        for s, seed in enumerate(context.seeds):
            for c, concept in enumerate(concepts):
                if concept in texts:
                    values[c, p, s] = sweep.scores(context, seed, arms, texts[concept])
    coords = {
        "concept": list(concepts),
        "arm": [arm.name for arm in (*RUNS, *arms)],
        "scorer": list(sweep.scorers),
        "role": ("arm", ["run"] * len(RUNS) + [arm.role for arm in arms]),
        "null_of": ("arm", [""] * len(RUNS) + [arm.null_of for arm in arms]),
    }
    return xr.DataArray(values, coords, DIMS)
