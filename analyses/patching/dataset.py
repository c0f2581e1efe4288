"""The dataset of a patching map: scores, recordings and texts of all its pairs, seeds and arms, labelled."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Shaped

from analyses.patching.arms import Arm
from analyses.patching.contexts import PairContext
from analyses.patching.sweep import Sweep
from cache.errors import UserError
from cache.wording import quoted
from workbench.prompts.prompt_sets import Pair
from workbench.seeds import seed_array

NO_BLOCK = -1  # block of arms whose row is not that of a single block
DIMS = ("concept", "pair", "seed", "arm", "scorer")
# Variables that describe a map's pairs.
TEXTS: dict[str, Callable[[Pair], str]] = {
    "clean_prompt": lambda pair: pair.clean.text,
    "corrupt_prompt": lambda pair: pair.corrupt.text,
    "clean_value": lambda pair: pair.clean_value,
    "corrupt_value": lambda pair: pair.corrupt_value,
    "text": lambda pair: pair.text,
}
Arms = Mapping[str, Sequence[Arm]]


def score_array(
    sweep: Sweep, contexts: Mapping[str, Sequence[PairContext]], arms: Sequence[Arm]
) -> xr.DataArray:
    """Return scores with dims (concept, pair, seed, arm, scorer), and labels of arms; NaN if the study has none."""
    n_pairs = max(len(pairs) for pairs in contexts.values())
    shape = (len(contexts), n_pairs, sweep.n_seeds, 2 + len(arms), len(sweep.columns))
    values = np.full(shape, np.nan)
    for c, pairs in enumerate(contexts.values()):
        for p, context in enumerate(pairs):
            for s, seed in enumerate(context.seeds):
                values[c, p, s] = sweep.scores(context, seed, arms)
    coords = {
        "concept": list(contexts),
        "pair": range(n_pairs),
        "seed": range(sweep.n_seeds),
        "scorer": sweep.columns,
        **_arm_coords(arms),
    }
    return xr.DataArray(values, coords=coords, dims=DIMS)


def map_dataset(sweep: Sweep, arms: Sequence[Arm], chosen: Arms, n_run: Mapping[str, int]) -> xr.Dataset:
    """Return scores, audio files and texts of the map; arms that were not `chosen` and pairs after a stop are empty.

    They are empty even if the study has such runs from another map. Raises UserError as `check_complete` does.
    """
    check_complete(sweep, chosen, n_run)
    score = score_array(sweep, sweep.contexts, arms)
    audio = np.full(score.shape[:-1], "", dtype=object)
    for c, contexts in enumerate(sweep.contexts.values()):
        for p, context in enumerate(contexts):
            audio[c, p] = [sweep.audio(context, seed, arms) for seed in context.seeds]
    for c, concept in enumerate(sweep.contexts):
        names = {"clean", "corrupt", *(arm.name for arm in chosen[concept])}
        left_out = np.array([arm not in names for arm in score.arm.values])
        for empty in ((slice(None), slice(None), left_out), (slice(n_run[concept], None),)):
            score.values[c][empty] = np.nan
            audio[c][empty] = ""
    noise = {"noise_seed": (DIMS[:3], _noise_seeds(sweep.contexts, score.shape[:3]))}
    return xr.Dataset({"score": score, "audio": (DIMS[:-1], audio), **noise, **_texts(sweep.contexts)})


def check_complete(sweep: Sweep, chosen: Arms, n_run: Mapping[str, int]) -> None:
    """Raise UserError if a run or a score of the map is not in the study any more, although it was made."""
    missing = [
        (context.pair.clean.text, seed, name)
        for concept, contexts in sweep.contexts.items()
        for context in contexts[: n_run[concept]]
        for seed in context.seeds
        for name in sweep.missing(context, seed, chosen[concept])
    ]
    if missing:
        prompt, seed, name = missing[0]
        raise UserError(
            f"{len(missing)} runs of the map are missing, such as '{name}' of {quoted(prompt)} (seed {seed}). They "
            "were removed in the meantime. Run the command again to regenerate them."
        )


def _noise_seeds(
    contexts: Mapping[str, Sequence[PairContext]], shape: tuple[int, ...]
) -> Shaped[np.ndarray, "concept pair seed"]:
    """Return the seeds of each pair's noise; 0 where a concept has fewer pairs."""
    seeds = np.zeros(shape, dtype=np.uint64)
    seeds[_has_pair(contexts)] = [context.seeds for of_concept in contexts.values() for context in of_concept]
    return seed_array(seeds.ravel().tolist()).reshape(shape)


def _has_pair(contexts: Mapping[str, Sequence[PairContext]]) -> Bool[np.ndarray, "concept pair"]:
    """Return which pairs there are: concepts may have different numbers of them, because some were dropped."""
    lengths = np.array([len(of_concept) for of_concept in contexts.values()])
    return np.arange(lengths.max()) < lengths[:, None]


def _texts(
    contexts: Mapping[str, Sequence[PairContext]],
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    pairs = [context.pair for of_concept in contexts.values() for context in of_concept]
    place = _has_pair(contexts)
    texts = {name: np.full(place.shape, "", dtype=object) for name in TEXTS}
    for name, text in TEXTS.items():
        texts[name][place] = [text(pair) for pair in pairs]
    return {name: (("concept", "pair"), values) for name, values in texts.items()}


def _arm_coords(arms: Sequence[Arm]) -> dict[str, tuple[str, list[Any]]]:
    specs = [json.dumps(arm.to_json()["edits"]) for arm in arms]
    return {
        "arm": ("arm", ["clean", "corrupt", *(arm.name for arm in arms)]),
        "row": ("arm", ["", "", *(arm.row for arm in arms)]),
        "column": ("arm", ["", "", *(arm.column for arm in arms)]),
        "direction": ("arm", ["", "", *(arm.direction for arm in arms)]),
        "role": ("arm", ["run", "run", *(arm.role for arm in arms)]),
        "block": ("arm", [NO_BLOCK, NO_BLOCK, *(NO_BLOCK if a.block is None else a.block for a in arms)]),
        "window": ("arm", ["", "", *map(_window, arms)]),
        "null_of": ("arm", ["", "", *(arm.null_of for arm in arms)]),
        "null_kind": ("arm", ["", "", *(arm.null_kind for arm in arms)]),
        "spec": ("arm", ["", "", *specs]),
    }


def _window(arm: Arm) -> str:
    """Return the window of an arm's edits as JSON; "" if they differ."""
    windows = {json.dumps(edit.window.options) for edit in arm.edits}
    return windows.pop() if len(windows) == 1 else ""
