"""Activations for a sparse autoencoder: the split into training and held-out clips, and reading clip by clip."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from cache import ActivationCache
from cache.errors import UserError


def split_by_prompt(clips: pd.DataFrame, held_out_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split the clips into training and held-out clips by holding out a fraction of the prompts, at least one.

    They are drawn at random, but each has as many values of concepts as possible that those before it have not:
    without a violin, features of violins would look dead. Prompts that the model reads as the same tokens count as one.

    Returns:
        The numbers of the training clips and of the held-out clips.

    Raises:
        UserError: if there are fewer than two prompts.
    """
    prompts = clips["encoding"].unique()
    if len(prompts) < 2:
        raise UserError(
            "A sparse autoencoder needs clips of at least two prompts that differ to the model, because one is held "
            "out. Trace more."
        )
    count = min(max(1, round(held_out_fraction * len(prompts))), len(prompts) - 1)
    order = np.random.default_rng(seed).permutation(prompts).tolist()
    held_out = clips["encoding"].isin(_covering(clips, order, count))
    return clips["clip"][~held_out].tolist(), clips["clip"][held_out].tolist()


def _covering(clips: pd.DataFrame, prompts: Sequence[str], count: int) -> list[str]:
    """Return this many of the prompts, each the first of those with the most values that are still missing.

    A value of a single prompt is left to the training.
    """
    labels = clips.drop_duplicates("encoding").set_index("encoding").filter(like="label_")
    missing = {
        (concept, value)
        for concept in labels
        for value, n in labels[concept].value_counts().items()
        if value and n > 1
    }
    values = {prompt: missing & set(labels.loc[prompt].items()) for prompt in prompts}
    chosen: list[str] = []
    rest = list(prompts)
    while missing and len(chosen) < count:
        best = max(rest, key=lambda prompt: len(values[prompt] & missing))
        rest.remove(best)
        chosen.append(best)
        missing = missing - values[best]
    return [*chosen, *rest][:count]


def by_clip(
    cache: ActivationCache, site: str, pass_name: str, clips: Sequence[int]
) -> Iterator[Float[np.ndarray, "step token channel"]]:
    """Iterate over the clips' activations, reading a shard's worth of clips at a time."""
    size = cache.plan.clips_per_shard
    for start in range(0, len(clips), size):
        yield from cache.read(site, clips=clips[start : start + size], passes=[pass_name])[:, :, 0]
