"""Activations for a sparse autoencoder: the split into training and held-out clips, and reading clip by clip."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from cache import ActivationCache
from cache.errors import UserError


def split_by_prompt(clips: pd.DataFrame, held_out_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split the clips into training and held-out clips by holding out a random fraction of the prompts, at least one.

    Prompts that the model reads as the same tokens count as one prompt.

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
    held_out = clips["encoding"].isin(np.random.default_rng(seed).permutation(prompts)[:count])
    return clips["clip"][~held_out].tolist(), clips["clip"][held_out].tolist()


def by_clip(
    cache: ActivationCache, site: str, pass_name: str, clips: Sequence[int]
) -> Iterator[Float[np.ndarray, "step token channel"]]:
    """Iterate over the clips' activations, reading a shard's worth of clips at a time."""
    size = cache.plan.clips_per_shard
    for start in range(0, len(clips), size):
        yield from cache.read(site, clips=clips[start : start + size], passes=[pass_name])[:, :, 0]
